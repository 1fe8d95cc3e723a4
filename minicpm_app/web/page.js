// Runs once in every tab. Ids of conversations live in the tab's own storage, so that a reload finds them again.
() => {
  window.minicpmVisitor = () => {
    let id = sessionStorage.getItem("minicpm-visitor");
    if (!/^[0-9a-f]{32}$/.test(id || "")) {
      const bytes = crypto.getRandomValues(new Uint8Array(16));
      id = Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
      sessionStorage.setItem("minicpm-visitor", id);
    }
    return id;
  };
  window.minicpmLanguage = () => localStorage.getItem("minicpm-language") || navigator.language || "en";
  window.minicpmCollection = () => localStorage.getItem("minicpm-collection") || "";
  window.minicpmShowSource = () => {
    const mark = document.querySelector("#mc-source .mc-quote, #mc-source .mc-passage");
    const panel = document.querySelector("#mc-source .mc-source");
    if (!panel) return;
    if (window.innerWidth < 900) document.querySelector("#mc-right").scrollIntoView({ behavior: "smooth" });
    const box = panel.querySelector(".mc-leaf, .mc-text");
    const picture = panel.querySelector("img");
    const center = () => {
      if (!mark || !box) return;
      const up = mark.getBoundingClientRect().top - box.getBoundingClientRect().top;
      box.scrollTop += up - box.clientHeight / 3;
    };
    if (picture && !picture.complete) picture.onload = center;
    else center();
  };
}
