// Questions to the user: one modal dialog at a time. `<dialog>` traps the focus and returns it.
import { el } from "./dom.js";

/**
 * Asks, then acts. `field`: {label, hint, type, isRequired, maxLength}; `act(text)` is awaited, and its error is shown in the dialog.
 * Resolves to whether it was done.
 */
export function ask({ title, lines, field, confirm, isDangerous = false, act }) {
  return new Promise((resolve) => {
    const input = el(field.type === "password" ? "input" : "textarea", {
      name: "text",
      type: field.type,
      required: field.isRequired,
      maxlength: field.maxLength,
      autocomplete: "off",
      spellcheck: field.type === "password" ? "false" : null,
    });
    const wrong = el("p", { class: "notice", role: "alert", data: { tone: "bad" }, hidden: true });
    const cancel = el("button", { type: "button", text: "Cancel" });
    const go = el("button", { type: "submit", class: isDangerous ? "danger" : "first", text: confirm });
    const form = el(
      "form",
      { method: "dialog" },
      lines.map((line) => el("p", { text: line })),
      el("label", {}, field.label, input, field.hint ? el("span", { class: "soft", text: field.hint }) : null),
      wrong,
      el("div", { class: "choices" }, cancel, go),
    );
    const heading = el("h2", { id: "dialog-title", text: title });
    const dialog = el("dialog", { "aria-labelledby": "dialog-title" }, heading, form);
    let isDone = false;

    cancel.addEventListener("click", () => dialog.close());
    form.addEventListener("submit", async (event) => {
      event.preventDefault();
      go.disabled = true;
      try {
        await act(input.value.trim());
        isDone = true;
        dialog.close();
      } catch (error) {
        wrong.textContent = error.message;
        wrong.hidden = false;
        input.focus();
      } finally {
        go.disabled = false;
      }
    });
    dialog.addEventListener("close", () => {
      dialog.remove();
      resolve(isDone);
    });
    document.body.append(dialog);
    dialog.showModal();
    input.focus();
  });
}
