"use strict";
// Everything is readable without this; with it, claims can be filtered and commands copied.
(() => {
  const form = document.getElementById("filter");
  const items = [...document.querySelectorAll("[data-claim]")];
  const rows = items.filter((item) => item.tagName === "TR");

  function apply() {
    const wanted = [...new FormData(form)].filter(([, value]) => value);
    for (const item of items) {
      item.hidden = wanted.some(([key, value]) => item.dataset[key] !== value);
    }
    for (const group of document.querySelectorAll(".verdicts tbody, .group")) {
      group.hidden = !group.querySelector("[data-claim]:not([hidden])");
    }
    const shown = rows.filter((row) => !row.hidden).length;
    form.querySelector("output").textContent = `${shown} of ${rows.length} claims`;
  }

  form.hidden = false;
  form.addEventListener("change", apply);
  form.addEventListener("submit", (event) => event.preventDefault());
  form.addEventListener("reset", () => setTimeout(apply));
  // A link to a claim that the filter hides shows everything again.
  addEventListener("hashchange", () => {
    if (document.getElementById(location.hash.slice(1))?.closest("[hidden]")) form.reset();
  });
  apply();

  for (const button of document.querySelectorAll("[data-copy]")) {
    button.hidden = false;
    button.addEventListener("click", async () => {
      const command = button.parentElement.querySelector("pre");
      getSelection().selectAllChildren(command);
      try {
        await navigator.clipboard.writeText(command.textContent);
        button.textContent = "Copied";
      } catch {
        button.textContent = "Selected";
      }
      setTimeout(() => (button.textContent = "Copy"), 2000);
    });
  }
})();
