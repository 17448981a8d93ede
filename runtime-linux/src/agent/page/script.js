"use strict";
// Replaces what is shown every five seconds, but not under the hands of who types, selects or looks elsewhere.
const refresh = async () => {
  const live = document.getElementById("live");
  const busy = document.hidden || live.contains(document.activeElement) || !getSelection().isCollapsed;
  if (busy) return;
  try {
    const answer = await fetch(location.href, { signal: AbortSignal.timeout(4000) });
    if (!answer.ok) throw new Error(answer.status);
    const fresh = new DOMParser().parseFromString(await answer.text(), "text/html").getElementById("live");
    for (const open of live.querySelectorAll("details[open]")) {
      fresh.querySelector(`details[data-key="${CSS.escape(open.dataset.key)}"]`)?.setAttribute("open", "");
    }
    live.replaceWith(document.adoptNode(fresh));
    document.body.classList.remove("lost");
  } catch {
    document.body.classList.add("lost");
  }
};
setInterval(refresh, 5000);
