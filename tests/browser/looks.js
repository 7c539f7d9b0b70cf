// Run in the page: every visible text with the contrast of its colour to what lies behind it (WCAG 2.2, 1.4.3).
() => {
  const canvas = document.createElement("canvas").getContext("2d", { willReadFrequently: true });
  const parse = (colour) => {
    canvas.clearRect(0, 0, 1, 1);
    canvas.fillStyle = colour;
    canvas.fillRect(0, 0, 1, 1);
    return [...canvas.getImageData(0, 0, 1, 1).data];
  };
  const light = ([r, g, b]) => {
    const part = (value) => (value / 255 <= 0.04045 ? value / 255 / 12.92 : ((value / 255 + 0.055) / 1.055) ** 2.4);
    return 0.2126 * part(r) + 0.7152 * part(g) + 0.0722 * part(b);
  };
  const ratio = (a, b) => {
    const [high, low] = [light(a), light(b)].sort((x, y) => y - x);
    return (high + 0.05) / (low + 0.05);
  };
  const behind = (node) => {
    for (let at = node; at; at = at.parentElement) {
      const colour = parse(getComputedStyle(at).backgroundColor);
      if (colour[3] === 255) return colour;
    }
    return [255, 255, 255, 255];
  };
  const shown = (node) => node.checkVisibility({ visibilityProperty: true }) && node.getBoundingClientRect().width > 0;
  const texts = [];
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walker.nextNode()) {
    const node = walker.currentNode.parentElement;
    if (!walker.currentNode.textContent.trim() || !shown(node) || node.closest("title, :disabled, .skip")) continue;
    const style = getComputedStyle(node);
    const size = parseFloat(style.fontSize);
    const large = size >= 24 || (size >= 18.66 && Number(style.fontWeight) >= 700);
    const colour = parse(node.closest("svg") ? style.fill : style.color);
    texts.push({ text: walker.currentNode.textContent.trim().slice(0, 60), ratio: ratio(colour, behind(node)), least: large ? 3 : 4.5 });
  }
  const shapes = [...document.querySelectorAll(".bar, .map .meter, .map .lot .rim, .line, circle.came, progress, input, select, button:enabled:not(.plain)")].filter(shown).map((node) => {
    const style = getComputedStyle(node);
    const drawn = node instanceof SVGElement ? (style.stroke === "none" ? style.fill : style.stroke) : style.borderTopColor;
    const own = node.tagName === "PROGRESS" ? getComputedStyle(document.querySelector(".brand")).color : drawn;
    return { text: `${node.tagName} ${node.getAttribute("class") ?? ""}`, ratio: ratio(parse(own), behind(node.parentElement)), least: 3 };
  });
  return [...texts, ...shapes];
}
