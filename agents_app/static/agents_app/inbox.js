// The inbox: what somebody else decided goes at once, and one key decides.
"use strict";

(() => {
  const inbox = document.getElementById("inbox");
  if (!inbox) return;
  const EVERY_MS = 1000, seen = new Map();
  let busy = false;

  const cards = () => [...document.querySelectorAll("#items .ask")];
  const current = () => document.activeElement?.closest(".ask") ?? document.querySelector(".ask.current");
  const choose = (card) => {
    document.querySelector(".ask.current")?.classList.remove("current");
    card?.classList.add("current");
    card?.focus({ preventScroll: true });
    card?.scrollIntoView({ block: "nearest" });
  };

  const refresh = async () => {
    if (busy || document.hidden) return;
    busy = true;
    try {
      const answer = await fetch(inbox.dataset.parts);
      if (!answer.ok || answer.redirected) return;
      const at = current()?.dataset.call, index = cards().indexOf(current());
      Console.replace(await answer.text(), seen);
      if (at && !current()) choose(document.getElementById(`call-${at}`) ?? cards()[Math.min(index, cards().length - 1)]);
    } catch {
      // the next second tries again
    } finally {
      busy = false;
    }
  };

  const move = (by) => {
    const all = cards();
    choose(all[Math.max(0, Math.min(all.length - 1, all.indexOf(current()) + by))]);
  };
  const unfold = (card, name) => {
    const fold = card?.querySelector(`details.${name}`);
    if (!fold) return;
    fold.open = true;
    fold.querySelector("input:not([type=hidden]), textarea").focus();
  };
  const keys = {
    j: () => move(1),
    k: () => move(-1),
    a: (card) => card?.querySelector("form.approve")?.requestSubmit(card.querySelector("form.approve button")),
    r: (card) => unfold(card, "reject"),
    e: (card) => unfold(card, "edit-call"),
    x: (card) => card?.querySelector("input.choose")?.click(),
  };

  document.addEventListener("keydown", (event) => {
    if (event.key === "Escape" && document.activeElement?.closest(".ask")) {
      const card = current();
      for (const fold of card.querySelectorAll("details[open]")) fold.open = false;
      choose(card);
      return;
    }
    if (event.ctrlKey || event.metaKey || event.altKey || event.target.matches("input:not([type=checkbox]), textarea, select")) return;
    const key = keys[event.key.toLowerCase()];
    if (!key) return;
    event.preventDefault();
    key(current());
  });
  document.getElementById("choose-all")?.addEventListener("change", (event) => {
    for (const box of document.querySelectorAll("input.choose")) box.checked = event.target.checked;
  });
  Console.listen(refresh);
  setInterval(refresh, EVERY_MS);
  if (cards().length) choose(cards()[0]);
})();
