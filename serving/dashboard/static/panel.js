// The states of a panel: a skeleton while it loads, then content, an explanation if there is none, an error with a retry, or earlier content.
import { byId, el } from "./dom.js";
import { moment } from "./format.js";

export class Panel {
  #section;
  #body;
  #show;
  #shown = null; // the response that is shown, as text: an equal response changes nothing on the page
  #data = null;
  #shownAt = null;
  #round = 0;

  /** `show(body, data, aside)` fills the empty body; `retry()` is offered after an error. */
  constructor(id, show, retry) {
    this.#section = byId(id);
    this.#body = this.#section.querySelector(".body");
    this.#show = show;
    this.retry = retry;
  }

  get aside() {
    return this.#section.querySelector(".aside");
  }

  /** Shows the promise's result. Of several in progress, the latest counts. */
  async follow(promise) {
    const round = ++this.#round;
    try {
      const data = await promise;
      if (round === this.#round) this.#fill(data);
    } catch (error) {
      if (round === this.#round) this.#fail(error);
    }
  }

  /** No data at the moment, for a reason that the state shows: the content fades, or (`isErased`) is removed. */
  lose(isErased) {
    this.#round += 1; // responses that are still to come are ignored
    this.#section.setAttribute("aria-busy", "false");
    this.#clearNotice();
    if (isErased) this.#data = null;
    this.#shown = null;
    if (this.#data === null) this.#body.replaceChildren(empty("Unknown at the moment."));
    else this.#body.classList.add("is-stale");
    if (this.#data === null) this.aside.replaceChildren();
  }

  /** Draws the same data again, in other colours. */
  redraw() {
    if (this.#data !== null) this.#render();
  }

  #fill(data) {
    const text = JSON.stringify(data);
    this.#shownAt = new Date().toISOString();
    this.#section.setAttribute("aria-busy", "false");
    const wasStale = this.#clearNotice();
    if (text === this.#shown && !wasStale) return;
    this.#shown = text;
    this.#data = data;
    this.#render();
  }

  /** What the reader had opened stays open, and the focus stays where it was. */
  #render() {
    const tables = () => [...this.#body.querySelectorAll("details.table")];
    const wereOpen = tables().map((table) => table.open);
    const hadFocus = this.#body.contains(document.activeElement);
    this.#body.replaceChildren();
    this.#show(this.#body, this.#data, this.aside);
    tables().forEach((table, place) => {
      table.open = wereOpen[place] ?? false;
    });
    if (hadFocus) this.#body.querySelector('[tabindex="0"], summary, button')?.focus({ preventScroll: true });
  }

  #fail(error) {
    if (error.name !== "ApiError" && !("kind" in error)) throw error; // a bug of this page, not an error of the API: for the console
    this.#section.setAttribute("aria-busy", "false");
    this.#clearNotice();
    const isShown = this.#data !== null;
    const since = isShown ? ` The data below is from ${moment(this.#shownAt)}.` : "";
    const again = el("button", { type: "button", text: "Try again", on: { click: () => this.retry() } });
    const notice = el(
      "div",
      { class: "notice", data: { tone: isShown ? "warning" : "bad" } },
      el("p", { text: `${error.message}${since}` }),
      el("p", { class: "act" }, again),
    );
    if (!isShown) this.#body.replaceChildren();
    this.#body.prepend(notice);
    this.#body.classList.toggle("is-stale", isShown);
  }

  #clearNotice() {
    const wasStale = this.#body.classList.contains("is-stale");
    this.#body.classList.remove("is-stale");
    this.#body.querySelector(":scope > .notice")?.remove();
    return wasStale;
  }
}

export const empty = (text) => el("p", { class: "empty", text });
