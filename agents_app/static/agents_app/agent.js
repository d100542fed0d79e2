// One agent's page: what is typed into is set here, and the draft is tried without leaving the page.
"use strict";

(() => {
  const form = document.getElementById("draft");
  if (!form) return;

  form.addEventListener("input", (event) => {
    const part = event.target.closest(".part"), box = part?.querySelector("header input");
    if (box && event.target !== box) box.checked = true;
  });

  const result = document.getElementById("result"), button = document.getElementById("try");
  if (!result) return;
  const stop = document.getElementById("stop"), waiting = document.getElementById("waiting");
  const LINES = "application/x-ndjson";
  let asking = null;

  const show = (on) => {
    button.disabled = on;
    stop.hidden = waiting.hidden = !on;
    result.classList.toggle("stale", on);
  };
  const put = (html) => result.replaceChildren(...new DOMParser().parseFromString(html, "text/html").body.childNodes);

  // The answer while it is written, then all there is to show.
  const follow = async (body) => {
    const reader = body.pipeThrough(new TextDecoderStream()).getReader();
    const written = document.createElement("div");
    written.className = "text answer";
    let rest = "", text = "";
    for (let part = await reader.read(); !part.done; part = await reader.read()) {
      const lines = (rest + part.value).split("\n");
      rest = lines.pop();
      for (const line of lines.map((one) => JSON.parse(one))) {
        if ("html" in line) { put(line.html); continue; }
        if (!text) { result.replaceChildren(written); result.classList.remove("stale"); }
        text += line.text;
        written.textContent = Console.visible(text);
      }
    }
  };
  const attempt = async () => {
    if (asking) return;
    asking = new AbortController();
    const began = performance.now(), seconds = waiting.querySelector("span");
    const count = () => { seconds.textContent = `${Math.round((performance.now() - began) / 1000)} s`; };
    const clock = setInterval(count, 1000);
    count();
    show(true);
    try {
      const body = new FormData(form);
      body.delete("csrfmiddlewaretoken");
      const answer = await fetch(form.dataset.try, {
        method: "POST", body, signal: asking.signal, headers: { Accept: LINES, "X-CSRFToken": Console.token() },
      });
      if (!answer.ok || answer.redirected) throw new Error(`HTTP ${answer.status}`);
      if (answer.headers.get("content-type").startsWith(LINES)) await follow(answer.body);
      else put(await answer.text());
    } catch (error) {
      if (error.name !== "AbortError") Console.say(String(error), false);
    } finally {
      clearInterval(clock);
      asking = null;
      show(false);
    }
  };

  form.addEventListener("submit", (event) => {
    if (event.submitter !== button) return;
    event.preventDefault();
    attempt();
  });
  stop.addEventListener("click", () => asking?.abort());
  document.getElementById("message").addEventListener("keydown", (event) => {
    if (event.key !== "Enter" || !(event.ctrlKey || event.metaKey)) return;
    event.preventDefault();
    attempt();
  });
})();
