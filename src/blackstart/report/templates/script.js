// Conveniences only: everything is readable without this script.
const root = document.documentElement;
const all = () => [...document.querySelectorAll("details")];
document.getElementById("theme").addEventListener("click", () => {
  const dark = root.dataset.theme ? root.dataset.theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
  root.dataset.theme = dark ? "light" : "dark";
});
document.getElementById("expand").addEventListener("click", () => {
  const open = all().some((d) => !d.open);
  all().forEach((d) => { d.open = open; });
});
addEventListener("beforeprint", () => all().forEach((d) => { d.open = true; }));
const trials = [...document.querySelectorAll("section.trial")];
addEventListener("keydown", (event) => {
  const step = { j: 1, k: -1 }[event.key];
  if (!step || event.ctrlKey || event.metaKey || event.altKey || !trials.length) return;
  const here = trials.findIndex((t) => t.getBoundingClientRect().bottom > 80);
  const near = here >= 0 && trials[here].getBoundingClientRect().top > 40;
  const next = step > 0 ? (near ? here : here + 1) : here - 1;
  const goal = trials[Math.max(0, Math.min(trials.length - 1, next))];
  goal.scrollIntoView();
  goal.focus({ preventScroll: true });
});
document.querySelectorAll("[data-copy]").forEach((button) => button.addEventListener("click", async () => {
  await navigator.clipboard.writeText(button.dataset.copy).catch(() => {});
  button.textContent = "copied";
}));
