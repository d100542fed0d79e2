// The home page keeps itself up to date.
"use strict";

(() => {
  const home = document.getElementById("home-live");
  if (!home) return;
  const EVERY_MS = 5000, seen = new Map();
  setInterval(async () => {
    if (document.hidden) return;
    const answer = await fetch(home.dataset.parts + location.search).catch(() => null);
    if (answer?.ok && !answer.redirected) Console.replace(await answer.text(), seen);
  }, EVERY_MS);
})();
