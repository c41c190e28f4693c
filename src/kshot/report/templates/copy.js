"use strict";
// A clipboard needs a secure page, which file:// is not everywhere; then the command is selected for Ctrl-C.
for (const button of document.querySelectorAll(".copy")) {
  const text = button.parentElement.querySelector("pre");
  button.addEventListener("click", async () => {
    try {
      await navigator.clipboard.writeText(text.textContent);
      button.textContent = "Copied";
    } catch {
      getSelection().selectAllChildren(text);
      button.textContent = "Press Ctrl-C";
    }
    setTimeout(() => { button.textContent = "Copy"; }, 1800);
  });
}
