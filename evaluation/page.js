"use strict";
for (const card of document.querySelectorAll("article")) {
  const audio = card.querySelector("audio");
  const lanes = card.querySelector(".lanes");
  const head = lanes.querySelector(".head");
  const scroll = lanes.parentElement;
  const scale = Number(lanes.dataset.scale);

  // The line at what is heard, and the part of the picture that it is in.
  const follow = () => {
    const x = audio.currentTime * scale;
    head.setAttribute("transform", "translate(" + x + ")");
    head.style.visibility = "visible";
    if (!audio.paused) {
      if (x < scroll.scrollLeft || x > scroll.scrollLeft + scroll.clientWidth - 60) scroll.scrollLeft = x - 60;
      requestAnimationFrame(follow);
    }
  };

  const playFrom = (seconds) => {
    const seek = () => { audio.currentTime = seconds; };
    if (audio.readyState > 0) seek();
    else audio.addEventListener("loadedmetadata", seek, { once: true });
    audio.play();
  };

  const choose = (event) => {
    const word = event.target.closest("[data-t]");
    if (word) return Number(word.dataset.t);
    if (!event.target.closest(".lanes") || event.clientX === undefined) return null;
    const x = event.clientX - lanes.getBoundingClientRect().left - Number(lanes.dataset.margin);
    return Math.max(0, x / scale);
  };

  if (audio) {
    audio.addEventListener("play", () => {
      for (const other of document.querySelectorAll("audio")) if (other !== audio) other.pause();
      follow();
    });
    audio.addEventListener("seeked", follow);
    card.addEventListener("click", (event) => {
      const seconds = choose(event);
      if (seconds !== null) playFrom(seconds);
    });
    card.addEventListener("keydown", (event) => {
      if ((event.key === "Enter" || event.key === " ") && event.target.matches("[data-t]")) {
        event.preventDefault();
        playFrom(Number(event.target.dataset.t));
      }
    });
  }

  // The same pair in both texts and in both lanes.
  card.addEventListener("mouseover", (event) => {
    for (const each of card.querySelectorAll(".on")) each.classList.remove("on");
    const word = event.target.closest("[data-p]");
    if (!word) return;
    for (const each of card.querySelectorAll('[data-p="' + word.dataset.p + '"]')) each.classList.add("on");
  });
}
