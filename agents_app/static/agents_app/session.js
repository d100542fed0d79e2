// A session's page while it lives: tokens as they come, and the server's own parts whenever something has happened.
"use strict";

(() => {
  const live = document.getElementById("live");
  if (!live) return;
  const REFRESH_MS = 250, CALM_MS = 5000;
  const seen = new Map(), link = document.getElementById("link");
  let text = "", timer = null, again = false, drawing = false;

  const draw = () => {
    drawing = false;
    const open = document.querySelector("#conversation .entry[data-open] .text");
    if (open && text) open.textContent = Console.visible(text);
  };
  const drawSoon = () => {
    if (!drawing) requestAnimationFrame(draw);
    drawing = true;
  };

  const refresh = async () => {
    timer = setTimeout(() => {
      timer = null;
      if (again) soon();
    }, REFRESH_MS);
    again = false;
    const answer = await fetch(live.dataset.parts + location.search).catch(() => null);
    if (!answer?.ok || answer.redirected) return;
    Console.replace(await answer.text(), seen);
    draw();
  };
  const soon = () => {
    if (timer) again = true;
    else refresh();
  };

  const hear = (event) => {
    const chunk = JSON.parse(event.data);
    if (chunk.type === "assistant_message" && !chunk.is_final && chunk.content === undefined) {
      text += chunk.token;
      drawSoon();
      return;
    }
    if (chunk.type === "event" && chunk.event_type === "MessageOpened") text = "";
    if (chunk.type === "assistant_message") text = "";
    soon();
  };

  const listen = () => {
    const source = new EventSource(`${live.dataset.stream}?events=all&stream_mode=tokens&after=${encodeURIComponent(live.dataset.cursor)}`);
    source.onmessage = hear;
    source.onopen = () => {
      link.hidden = true;
      document.documentElement.dataset.live = "on";
    };
    source.onerror = () => {
      link.textContent = live.dataset.reconnecting;
      link.hidden = false;
    };
  };

  if (live.dataset.stream) listen();
  Console.listen(soon);
  setInterval(() => document.hidden || soon(), CALM_MS); // ages, notes, and calls that fall into doubt
})();
