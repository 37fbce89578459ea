// Light, dark, or as the system; and the colours of the style sheet for canvases and Plotly.
import { byId, el } from "./dom.js";

const CHOICE = "selfheal.theme";
const CHOICES = { "": ["◐ Auto", "as the system"], light: ["○ Light", "light"], dark: ["● Dark", "dark"] };

/** `changed()` is called when the colours have changed. */
export function setUpTheme(changed) {
  const button = byId("theme");
  const apply = (choice) => {
    document.documentElement.dataset.theme = choice;
    const [text, meaning] = CHOICES[choice] ?? CHOICES[""];
    button.textContent = text;
    button.setAttribute("aria-label", `Theme: ${meaning}`);
  };
  apply(localStorage.getItem(CHOICE) ?? "");
  button.addEventListener("click", () => {
    const names = Object.keys(CHOICES);
    const next = names[(names.indexOf(document.documentElement.dataset.theme) + 1) % names.length];
    localStorage.setItem(CHOICE, next);
    apply(next);
    changed();
  });
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", changed);
}

/** The colour that a variable of the sheet has now, as `rgb(...)`. */
export function colour(name) {
  const probe = el("span", { hidden: true });
  document.body.append(probe);
  probe.style.color = `var(--${name})`;
  const found = getComputedStyle(probe).color;
  probe.remove();
  return found;
}
