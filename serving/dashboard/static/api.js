// Requests to the API. The key, if the API asks for one, is in this tab's sessionStorage and is sent in one header.

const KEY = "selfheal.key";
const TIMEOUT_MS = 15_000;

export const key = () => sessionStorage.getItem(KEY);
export const storeKey = (value) => sessionStorage.setItem(KEY, value);
export const forgetKey = () => sessionStorage.removeItem(KEY);

/** What went wrong, for people (`message`) and for code: `kind` is the problem's type, or `unreachable`. */
export class ApiError extends Error {
  constructor(kind, message, status = 0) {
    super(message);
    this.kind = kind;
    this.status = status;
  }
}

export const get = (path, parameters = {}) => {
  const query = new URLSearchParams(parameters).toString();
  return ask("GET", query ? `${path}?${query}` : path);
};

export const post = (path, body) => ask("POST", path, body);

async function ask(method, path, body) {
  const headers = { accept: "application/json" };
  if (key()) headers["x-api-key"] = key();
  if (body !== undefined) headers["content-type"] = "application/json";
  let answer;
  try {
    const options = { method, headers, cache: "no-store", signal: AbortSignal.timeout(TIMEOUT_MS) };
    answer = await fetch(path, body === undefined ? options : { ...options, body: JSON.stringify(body) });
  } catch {
    throw new ApiError("unreachable", "The API is unreachable.");
  }
  const content = await answer.json().catch(() => null);
  if (answer.ok && content !== null) return content;
  throw new ApiError(content?.type ?? "failed", content?.detail ?? `The API responded with status ${answer.status}.`, answer.status);
}
