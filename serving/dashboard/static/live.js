// The WebSocket /live: tells whoever listens what comes, and connects again for as long as the page is open.
import { key } from "./api.js";

const FIRST_PAUSE_MS = 1_000;
const LONGEST_PAUSE_MS = 15_000;
const SILENCE_MS = 6_000; // snapshots come every second: after so long without one, the connection is dead

/** Dispatches `message` (detail: the message) and `status` (detail: `live` or `lost`). */
export class Live extends EventTarget {
  #socket = null;
  #pause = FIRST_PAUSE_MS;
  #timer = 0;
  #watchdog = 0;

  /** Connects, with the key of this moment; an older connection is let go. */
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
      this.#pause = FIRST_PAUSE_MS;
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
    this.#pause = Math.min(2 * this.#pause, LONGEST_PAUSE_MS);
  }

  #watch() {
    clearTimeout(this.#watchdog);
    this.#watchdog = setTimeout(() => this.#again(), SILENCE_MS);
  }

  #dispatch(type, detail) {
    this.dispatchEvent(new CustomEvent(type, { detail }));
  }
}
