const lines = [...document.querySelectorAll("details")];
const buttons = [...document.querySelectorAll("nav button")];
const search = document.querySelector("nav input");
let shown = "";

function choose() {
  const text = search.value.toLowerCase();
  for (const line of lines) {
    const kind = !shown || line.dataset.verdict === shown;
    line.hidden = !kind || !line.textContent.toLowerCase().includes(text);
  }
  for (const section of document.querySelectorAll("section")) {
    section.hidden = !section.querySelector("details:not([hidden])");
  }
  for (const button of buttons) {
    button.setAttribute("aria-pressed", String(button.dataset.show === shown));
  }
}

for (const button of buttons) {
  button.addEventListener("click", () => {
    shown = button.dataset.show;
    choose();
  });
}
search.addEventListener("input", choose);
