// The WebSocket /live: dispatches its messages, and reconnects with exponential back-off for as long as the page is open.
import { key } from "./api.js";

const INITIAL_BACKOFF_MS = 1_000;
const MAX_BACKOFF_MS = 15_000;
const SILENCE_MS = 6_000; // snapshots come every second: after so long without one the connection counts as lost

/** Dispatches `message` (detail: the message) and `status` (detail: `live` or `lost`). */
export class Live extends EventTarget {
  #socket = null;
  #pause = INITIAL_BACKOFF_MS;
  #timer = 0;
  #watchdog = 0;

  /** Connects with the present key; closes an older connection. */
  connect() {
    this.close();
    const address = new URL("/live", location.href);
    address.protocol = location.protocol === "https:" ? "wss:" : "ws:";
    const protocols = key() ? ["selfheal", `selfheal.key.${key()}`] : ["selfheal"];
    const socket = new WebSocket(address, protocols);
    this.#socket = socket;
    this.#watch();
    socket.addEventListener("message", ({ data }) => {
      if (socket !== this.#socket) return;
      this.#pause = INITIAL_BACKOFF_MS;
      this.#watch();
      this.#dispatch("status", "live");
      this.#dispatch("message", JSON.parse(data));
    });
    socket.addEventListener("close", () => socket === this.#socket && this.#again());
  }

  close() {
    clearTimeout(this.#timer);
    clearTimeout(this.#watchdog);
    const socket = this.#socket;
    this.#socket = null;
    if (socket?.readyState === WebSocket.CONNECTING) socket.addEventListener("open", () => socket.close());
    else socket?.close();
  }

  #again() {
    this.close();
    this.#dispatch("status", "lost");
    this.#timer = setTimeout(() => this.connect(), this.#pause);
    this.#pause = Math.min(2 * this.#pause, MAX_BACKOFF_MS);
  }

  #watch() {
    clearTimeout(this.#watchdog);
    this.#watchdog = setTimeout(() => this.#again(), SILENCE_MS);
  }

  #dispatch(type, detail) {
    this.dispatchEvent(new CustomEvent(type, { detail }));
  }
}
