import fc from "fast-check";
import { SaxesParser } from "saxes";
import { describe, expect, it } from "vitest";
import { ArchiveTree } from "../host/archive-tree.ts";
import { inspectMachine } from "../host/inspect.ts";
import { largeHost } from "../host/large-host.suite.ts";
import { readHost } from "../host/sysfs.ts";
import { EMPTY_MACHINE } from "../topology/machine.ts";
import { cardBuses } from "./inspect-cards.ts";
import { inspectSvg } from "./inspect-svg.ts";
import { escapeXml, fitText, textWidth } from "./svg.ts";
import { twoSockets } from "./two-sockets.suite.ts";

interface Box {
  readonly x: number;
  readonly y: number;
  readonly width: number;
  readonly height: number;
}

/** Parses strictly; gives the boxes, the texts, and the size of the drawing. */
function parsed(svg: string): { boxes: Box[]; texts: string[]; size: Box } {
  const boxes: Box[] = [];
  const texts: string[] = [];
  let size: Box = { x: 0, y: 0, width: 0, height: 0 };
  const parser = new SaxesParser();
  parser.on("error", (error) => {
    throw error;
  });
  parser.on("opentag", ({ name, attributes }) => {
    const number = (key: string) => Number((attributes as Record<string, string>)[key] ?? 0);
    const box = {
      x: number("x"),
      y: number("y"),
      width: number("width"),
      height: number("height"),
    };
    if (name === "rect") boxes.push(box);
    if (name === "svg") size = box;
  });
  parser.on("text", (text) => {
    if (text.trim() !== "") texts.push(text);
  });
  parser.write(svg).close();
  return { boxes, texts, size };
}

describe("a drawing", () => {
  const svg = inspectSvg(twoSockets, { name: "two-socket server" });

  it("is well-formed, with everything inside of it", () => {
    const { boxes, size } = parsed(svg);
    expect(boxes.length).toBeGreaterThan(20);
    for (const box of boxes) {
      expect(box.x >= 0 && box.y >= 0).toBe(true);
      expect(box.x + box.width).toBeLessThanOrEqual(size.width);
      expect(box.y + box.height).toBeLessThanOrEqual(size.height);
    }
  });

  it("names nodes, units, devices, groups, and page tables that are walked from afar", () => {
    const { texts } = parsed(svg);
    expect(texts).toEqual(
      expect.arrayContaining([
        "NUMA node 0",
        "NUMA node 1",
        "01:00.0",
        "InfiniBand controller",
        "page tables of groups 0-2, walked by dmar0 FROM NODE 1",
        "page tables of groups 3-4, walked locally by dmar1",
      ]),
    );
    // The curve from the unit to the tables that it walks.
    expect(svg).toContain('marker-end="url(#arrow)"');
  });

  it("has the same bytes each time", () => {
    expect(inspectSvg(twoSockets, { name: "two-socket server" })).toBe(svg);
  });

  it("of nothing is a title", () => {
    expect(parsed(inspectSvg(inspectMachine(EMPTY_MACHINE), { name: "<none>" })).texts[0]).toBe(
      "Topology of <none>",
    );
  });

  it("of ten thousand functions is folded to what a person can look at", () => {
    const { machine } = readHost(new ArchiveTree("large", largeHost(10_000)));
    const result = inspectMachine(machine);
    const drawn = inspectSvg(result, { name: "large" });
    const { size, texts } = parsed(drawn);
    expect(size.height).toBeLessThan(4000);
    expect(texts.join()).toMatch(/930 × Ethernet/);
    const count = (cards: readonly { count: number; children: readonly never[] }[]): number =>
      cards.reduce((sum, card) => sum + card.count + count(card.children), 0);
    // Nothing is lost by folding.
    expect(cardBuses(result).reduce((sum, { cards }) => sum + count(cards as never), 0)).toBe(
      10_048,
    );
  });
});

describe("text of a drawing", () => {
  it("is escaped whatever it holds", () => {
    fc.assert(
      fc.property(fc.string({ unit: "binary" }), (text) => {
        parsed(`<svg a="${escapeXml(text)}">${escapeXml(text)}</svg>`);
      }),
    );
  });

  it("is cut to its room", () => {
    const style = { size: 10 };
    expect(fitText("short", 100, style)).toBe("short");
    const cut = fitText("a rather long text that does not fit", 60, style);
    expect(cut.endsWith("…")).toBe(true);
    expect(textWidth(cut, style)).toBeLessThanOrEqual(60);
    expect(fitText("x", 1, style)).toBe("");
  });
});
