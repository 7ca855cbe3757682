// Light or dark: what the system says, until somebody here says otherwise. Runs before anything is drawn.

(() => {
  const root = document.documentElement, system = matchMedia("(prefers-color-scheme: dark)");
  let said = null;
  try {
    said = localStorage.getItem("sicot.theme");
  } catch {
    // a browser that keeps nothing: the system is asked again
  }

  const apply = () => {
    const dark = said ? said === "dark" : system.matches;
    root.dataset.theme = dark ? "dark" : "light";
    document.getElementById("theme")?.setAttribute("aria-pressed", dark);
  };

  system.addEventListener("change", apply);
  document.addEventListener("DOMContentLoaded", () => {
    apply();
    document.getElementById("theme")?.addEventListener("click", () => {
      said = root.dataset.theme === "dark" ? "light" : "dark";
      try {
        localStorage.setItem("sicot.theme", said);
      } catch {
        // as above
      }
      apply();
    });
  });
  apply();
})();
