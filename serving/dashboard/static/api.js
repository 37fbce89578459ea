// Asking the API. The key, where one is asked for, lives in this tab's sessionStorage and goes into one header.

const KEY = "selfheal.key";
const PATIENCE_MS = 15_000;

export const key = () => sessionStorage.getItem(KEY);
export const keepKey = (value) => sessionStorage.setItem(KEY, value);
export const forgetKey = () => sessionStorage.removeItem(KEY);

/** What went wrong, for people (`message`) and for code: `kind` is the problem's type, or `unreachable`. */
export class ApiError extends Error {
  constructor(kind, message, status = 0) {
    super(message);
    this.kind = kind;
    this.status = status;
  }
}

export const get = (path, question = {}) => {
  const query = new URLSearchParams(question).toString();
  return ask("GET", query ? `${path}?${query}` : path);
};

export const post = (path, body) => ask("POST", path, body);

async function ask(method, path, body) {
  const headers = { accept: "application/json" };
  if (key()) headers["x-api-key"] = key();
  if (body !== undefined) headers["content-type"] = "application/json";
  let answer;
  try {
    const options = { method, headers, cache: "no-store", signal: AbortSignal.timeout(PATIENCE_MS) };
    answer = await fetch(path, body === undefined ? options : { ...options, body: JSON.stringify(body) });
  } catch {
    throw new ApiError("unreachable", "The API does not answer.");
  }
  const content = await answer.json().catch(() => null);
  if (answer.ok && content !== null) return content;
  throw new ApiError(content?.type ?? "failed", content?.detail ?? `The API answered ${answer.status}.`, answer.status);
}
