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
  const limit = () => Number(document.querySelector("#mc-limits [data-most-bytes]")?.dataset.mostBytes || Infinity);
  // What is too large is not sent; the list of files tells why, and the others go on.
  const keepSmall = (event, files) => {
    const most = limit(), large = [...files].filter((file) => file.size > most);
    if (!large.length) return;
    event.preventDefault();
    event.stopImmediatePropagation();
    const kept = new DataTransfer();
    for (const file of files) if (file.size <= most) kept.items.add(file);
    window.minicpmRefuse(large.map((file) => file.name));
    const input = document.querySelector("#mc-drop input[type=file]");
    if (!input || !kept.files.length) return;
    input.files = kept.files;
    input.dispatchEvent(new Event("change", { bubbles: true }));
  };
  document.addEventListener("change", (event) => {
    if (event.target.matches?.("#mc-drop input[type=file]")) keepSmall(event, event.target.files);
  }, true);
  document.addEventListener("drop", (event) => {
    const zone = event.target.closest?.("#mc-drop");
    if (!zone || !event.dataTransfer) return;
    keepSmall(event, event.dataTransfer.files);
    if (event.defaultPrevented) event.target.dispatchEvent(new DragEvent("dragleave", { bubbles: true }));
  }, true);
  document.addEventListener("click", (event) => {
    if (event.target.closest?.(".mc-back")) document.querySelector("#mc-talk-box").scrollIntoView({ behavior: "smooth" });
  });
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
