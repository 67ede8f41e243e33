/**
 * Writes SVG as text: the same input gives the same bytes. Coordinates are pixels, rounded to
 * hundredths; text is escaped; widths of text are estimated, since no font is at hand.
 */

export type Attributes = Readonly<Record<string, string | number | null | undefined>>;

/** Average advance of a character as a share of the font's size, a little on the large side. */
const SANS_ADVANCE = 0.56;
const BOLD_ADVANCE = 0.64;
const MONO_ADVANCE = 0.605;

/** How a text is set. */
export interface TextStyle {
  readonly size: number;
  readonly fill?: string;
  readonly bold?: boolean;
  readonly mono?: boolean;
  readonly anchor?: "start" | "middle" | "end";
}

/** Escapes text for elements and attributes; what XML 1.0 cannot hold becomes a replacement. */
export function escapeXml(text: string): string {
  return (
    text
      // biome-ignore lint/suspicious/noControlCharactersInRegex: these are what is to be found
      .replace(/[\u0000-\u0008\u000b\u000c\u000e-\u001f\ufffe\uffff]|\p{Surrogate}/gu, "\ufffd")
      .replaceAll("&", "&amp;")
      .replaceAll("<", "&lt;")
      .replaceAll(">", "&gt;")
      .replaceAll('"', "&quot;")
  );
}

/** Estimated width of a text in pixels. */
export function textWidth(text: string, style: TextStyle): number {
  const sans = style.bold === true ? BOLD_ADVANCE : SANS_ADVANCE;
  return text.length * style.size * (style.mono === true ? MONO_ADVANCE : sans);
}

/** A text cut to a width, with an ellipsis where something was cut off. */
export function fitText(text: string, width: number, style: TextStyle): string {
  if (textWidth(text, style) <= width) return text;
  const count = Math.floor(width / textWidth("x", style)) - 1;
  return count < 1 ? "" : `${text.slice(0, count).trimEnd()}…`;
}

function number(value: number): string {
  return String(Math.round(value * 100) / 100);
}

function attributesText(attributes: Attributes): string {
  return Object.entries(attributes)
    .filter(([, value]) => value !== null && value !== undefined)
    .map(([key, value]) => {
      const text = typeof value === "number" ? number(value) : escapeXml(value as string);
      return ` ${key}="${text}"`;
    })
    .join("");
}

/** A drawing under way. */
export class Drawing {
  readonly #parts: string[] = [];

  rect(x: number, y: number, width: number, height: number, attributes: Attributes = {}): void {
    this.#parts.push(`<rect${attributesText({ x, y, width, height, ...attributes })}/>`);
  }

  path(d: string, attributes: Attributes): void {
    this.#parts.push(`<path${attributesText({ d, ...attributes })}/>`);
  }

  text(x: number, y: number, text: string, style: TextStyle): void {
    if (text === "") return;
    const attributes: Attributes = {
      x,
      y,
      "font-size": style.size,
      "font-weight": style.bold === true ? 600 : null,
      "text-anchor": style.anchor === undefined || style.anchor === "start" ? null : style.anchor,
      class: style.mono === true ? "m" : null,
      fill: style.fill,
    };
    this.#parts.push(`<text${attributesText(attributes)}>${escapeXml(text)}</text>`);
  }

  /** What is drawn by `content` belongs together and shows `title` where a pointer rests on it. */
  group(title: string, content: () => void): void {
    this.#parts.push(`<g><title>${escapeXml(title)}</title>`);
    content();
    this.#parts.push("</g>");
  }

  /** The finished document. */
  document(width: number, height: number, title: string, defs = ""): string {
    const box = `0 0 ${number(width)} ${number(height)}`;
    return (
      `<svg xmlns="http://www.w3.org/2000/svg" viewBox="${box}" width="${number(width)}" ` +
      `height="${number(height)}" role="img" font-family="system-ui, 'Segoe UI', 'DejaVu Sans', ` +
      `Helvetica, Arial, sans-serif">\n<title>${escapeXml(title)}</title>\n` +
      "<style>.m{font-family:ui-monospace,Menlo,Consolas,'DejaVu Sans Mono',monospace}</style>\n" +
      `${defs}${this.#parts.join("\n")}\n</svg>\n`
    );
  }
}

/** Rounds a coordinate for a path. */
export function at(value: number): string {
  return number(value);
}

/** Extent of a box. */
export interface Size {
  readonly width: number;
  readonly height: number;
}

/** Columns that boxes are placed in at most. */
const COLUMNS_MAX = 4;

/** Places boxes in columns of about equal height. */
export function arrange(
  sizes: readonly Size[],
  gap: number,
): {
  positions: { x: number; y: number }[];
  width: number;
  height: number;
} {
  const columns = Math.min(COLUMNS_MAX, Math.max(1, Math.ceil(Math.sqrt(sizes.length))));
  const heights = Array.from({ length: columns }, () => 0);
  const column = sizes.map(({ height }) => {
    const shortest = heights.indexOf(Math.min(...heights));
    heights[shortest]! += height + gap;
    return shortest;
  });
  const widths = heights.map((_, index) =>
    Math.max(0, ...sizes.filter((_, at) => column[at] === index).map(({ width }) => width)),
  );
  const tops = heights.map(() => 0);
  const positions = sizes.map(({ height }, index) => {
    const here = column[index]!;
    const x = widths.slice(0, here).reduce((sum, width) => sum + width + 2 * gap, 0);
    const y = tops[here]!;
    tops[here]! += height + gap;
    return { x, y };
  });
  const width = widths.reduce((sum, one) => sum + one + 2 * gap, -2 * gap);
  return { positions, width, height: Math.max(...heights, 0) };
}
