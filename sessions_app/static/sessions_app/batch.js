// A background action's page follows it until it has ended.
"use strict";

(() => {
  const live = document.getElementById("batch-live");
  if (!live) return;
  const EVERY_MS = 1000, seen = new Map();
  const underWay = () => "underWay" in document.getElementById("batch-progress").dataset;
  if (!underWay()) return;
  const timer = setInterval(async () => {
    if (document.hidden) return;
    const answer = await fetch(live.dataset.parts).catch(() => null);
    if (!answer?.ok || answer.redirected) return;
    Console.replace(await answer.text(), seen);
    if (underWay()) return;
    clearInterval(timer);
    document.getElementById("stop-batch")?.remove();
  }, EVERY_MS);
})();
