/**
 * Draws a machine as `lstopo` does: nodes as boxes, in them the IOMMUs, behind those the buses with
 * their devices; in each node's memory the page tables that live there, and who walks them.
 */
import type { InspectResult } from "../host/inspect-result.ts";
import { type Card, groupLabel } from "./inspect-cards.ts";
import { type Chip, type Place, placesOf, REMOTE, type Unit } from "./inspect-places.ts";
import { arrange, at, Drawing, fitText, type Size, type TextStyle, textWidth } from "./svg.ts";

const CARD = { width: 236, height: 42, gap: 8, indent: 22 };
const PAD = 12;
/** Cards that one drawing holds. */
const CARDS_MAX = 1500;

const TITLE: TextStyle = { size: 20, bold: true, fill: "#1b1f24" };
const SUBTITLE: TextStyle = { size: 12, fill: "#57606a" };
const HEADING: TextStyle = { size: 14, bold: true, fill: "#1b1f24" };
const LABEL: TextStyle = { size: 11, fill: "#57606a" };
const NAME: TextStyle = { size: 12, bold: true, mono: true, fill: "#1b1f24" };
const SMALL: TextStyle = { size: 10.5, fill: "#57606a" };
const BADGE: TextStyle = { size: 10.5, bold: true, anchor: "middle" };

/** Colours of classes of devices: the strip at the left of a card. */
const classColours: readonly (readonly [RegExp, string])[] = [
  [/^0x01/, "#d9822b"],
  [/^0x02/, "#2f6fde"],
  [/^0x03|^0x12|^0x0b40/, "#1f9d55"],
  [/^0x06/, "#8c959f"],
  [/^0x0c03/, "#8e5bd0"],
];
const OTHER_COLOUR = "#57a0a8";
/** Colours of groups of several devices, which share a fate. */
const groupColours = ["#c2255c", "#0b7285", "#5f3dc4", "#a15c00", "#2b8a3e", "#1864ab", "#862e9c"];

/** What the drawing is of. */
export interface SvgOptions {
  readonly name: string;
}

/** Draws a result. */
export function inspectSvg(result: InspectResult, options: SvgOptions): string {
  return new Picture(result, options).draw();
}

class Picture {
  readonly #result: InspectResult;
  readonly #name: string;
  readonly #drawing = new Drawing();
  readonly #sharedGroups = new Map<number, string>();
  readonly #iommuTitles: ReadonlyMap<string, string>;
  /** Where each IOMMU's box and each chip with a walker from afar was drawn. */
  readonly #unitAt = new Map<string, { x: number; y: number }>();
  readonly #farChips: { x: number; y: number; walker: string }[] = [];
  #cards = 0;
  #undrawn = 0;

  constructor(result: InspectResult, { name }: SvgOptions) {
    this.#result = result;
    this.#name = name;
    const shared = result.groups.filter(({ devices }) => devices.length > 1);
    for (const [index, { id }] of shared.entries()) {
      this.#sharedGroups.set(id, groupColours[index % groupColours.length]!);
    }
    this.#iommuTitles = new Map(
      result.iommus.map((one) => {
        const where = one.registers ?? (one.bdf === one.name ? null : one.bdf);
        const node = one.node === null ? "" : `, node ${one.node}`;
        const kind = kindNames[one.kind];
        return [one.name, `${one.name}  ${kind}${where === null ? "" : ` at ${where}`}${node}`];
      }),
    );
  }

  draw(): string {
    const { nodes, iommus, devices, groups } = this.#result;
    const places = placesOf(this.#result);
    const sizes = places.map((place) => this.#placeSize(place));
    const { positions, width, height } = arrange(sizes, PAD);
    const drawing = this.#drawing;
    const total = Math.max(width, 560) + 2 * PAD;
    const head = 66;
    const legend = 46;
    drawing.rect(0, 0, total, height + head + legend + PAD, { fill: "#ffffff" });
    drawing.text(PAD, 30, fitText(this.#name, total - 2 * PAD, TITLE), TITLE);
    const facts = [
      `${nodes.length} NUMA ${nodes.length === 1 ? "node" : "nodes"}`,
      `${iommus.length} ${iommus.length === 1 ? "IOMMU" : "IOMMUs"}`,
      `${devices.length} devices in ${groups.length} groups`,
    ];
    if (nodes.length > 1 && nodes.length <= 8) {
      facts.push(`distances ${nodes.map(({ distances }) => distances.join(" ")).join(" / ")}`);
    }
    drawing.text(PAD, 50, facts.join("  ·  "), SUBTITLE);
    for (const [index, place] of places.entries()) {
      const { x, y } = positions[index]!;
      this.#drawPlace(place, x + PAD, y + head, sizes[index]!);
    }
    this.#drawWalks();
    this.#drawLegend(PAD, height + head + 18);
    return drawing.document(
      total,
      height + head + legend + PAD,
      `Topology of ${this.#name}`,
      ARROW,
    );
  }

  #placeSize(place: Place): Size {
    const units = place.units.map((unit) => unitSize(unit));
    const chips = chipRows(place.chips);
    const width = Math.max(CARD.width + 4 * PAD, chips.width, ...units.map((one) => one.width));
    const height =
      40 + chips.height + units.reduce((sum, one) => sum + one.height + PAD, 0) + PAD / 2;
    return { width: width + 2 * PAD, height };
  }

  #drawPlace(place: Place, x: number, y: number, { width, height }: Size): void {
    const drawing = this.#drawing;
    const fill = place.node === null ? "#fafafa" : "#f3f6fb";
    const stroke = place.node === null ? "#d0d7de" : "#a9bddb";
    drawing.rect(x, y, width, height, { fill, stroke, rx: 8 });
    drawing.text(x + PAD, y + 24, place.title, HEADING);
    const left = x + PAD + textWidth(place.title, HEADING) + 12;
    drawing.text(left, y + 24, fitText(place.subtitle, x + width - left - PAD, LABEL), LABEL);
    let top = y + 40;
    for (const chip of place.chips) {
      const text = fitText(chip.text, width - 4 * PAD, { ...LABEL, fill: chip.look.text });
      const style = { ...LABEL, fill: chip.look.text };
      drawing.rect(x + PAD, top, width - 2 * PAD, 24, {
        fill: chip.look.fill,
        stroke: chip.look.stroke,
        rx: 4,
      });
      this.#tableIcon(x + PAD + 8, top + 6, chip.look.stroke);
      drawing.text(x + PAD + 28, top + 16, text, style);
      if (chip.isRemote && chip.walker !== null) {
        this.#farChips.push({ x: x + width - PAD, y: top + 12, walker: chip.walker });
      }
      top += 30;
    }
    if (place.chips.length > 0) top += 4;
    for (const unit of place.units) {
      const size = unitSize(unit);
      this.#drawUnit(unit, x + PAD, top, { width: width - 2 * PAD, height: size.height });
      top += size.height + PAD;
    }
  }

  /** Three lines in a box: a page of entries. */
  #tableIcon(x: number, y: number, colour: string): void {
    const lines = [3, 6, 9].map((dy) => `M${at(x + 2)} ${at(y + dy)}h8`).join("");
    this.#drawing.rect(x, y, 12, 12, { fill: "#ffffff", stroke: colour, rx: 1.5 });
    this.#drawing.path(lines, { stroke: colour, fill: "none" });
  }

  #drawUnit(unit: Unit, x: number, y: number, { width, height }: Size): void {
    const drawing = this.#drawing;
    const isUnit = unit.iommu !== null;
    drawing.rect(x, y, width, height, {
      fill: isUnit ? "#ffffff" : "none",
      stroke: isUnit ? "#3b6fb6" : "#adb5bd",
      "stroke-width": isUnit ? 1.5 : 1,
      "stroke-dasharray": isUnit ? null : "5 4",
      rx: 6,
    });
    const title = isUnit ? (this.#iommuTitles.get(unit.iommu) ?? unit.iommu) : "not translated";
    const style: TextStyle = { size: 11.5, bold: isUnit, fill: isUnit ? "#24518f" : "#6e7781" };
    drawing.text(x + PAD, y + 18, fitText(title, width - 2 * PAD, style), style);
    if (unit.iommu !== null && !this.#unitAt.has(unit.iommu)) {
      this.#unitAt.set(unit.iommu, { x: x + width, y: y + 14 });
    }
    let top = y + 30;
    for (const bus of unit.buses) {
      drawing.text(x + PAD, top + 10, bus.name, LABEL);
      top += 18;
      const { rows, height: busHeight } = busRows(bus.cards, width - 2 * PAD);
      for (const { card, dx, dy } of rows) this.#drawTree(card, x + PAD + dx, top + dy);
      top += busHeight + 8;
    }
  }

  #drawTree(card: Card, x: number, y: number): void {
    if (this.#cards >= CARDS_MAX) {
      this.#undrawn += 1;
      return;
    }
    this.#drawCard(card, x, y);
    let top = y;
    const right = x + CARD.width;
    for (const child of card.children) {
      const middle = y + CARD.height / 2;
      const target = top + CARD.height / 2;
      const bend = right + CARD.indent / 2;
      const line = `M${at(right)} ${at(middle)}H${at(bend)}V${at(target)}H${at(right + CARD.indent)}`;
      this.#drawing.path(line, { stroke: "#8c959f", fill: "none" });
      this.#drawTree(child, right + CARD.indent, top);
      top += treeSize(child).height + CARD.gap;
    }
  }

  #drawCard(card: Card, x: number, y: number): void {
    this.#cards += 1;
    const { device, count } = card;
    const drawing = this.#drawing;
    const shared = card.groups.length === 1 ? this.#sharedGroups.get(card.groups[0]!) : undefined;
    const label = groupLabel(card);
    drawing.group(tooltip(card), () => {
      if (count > 1) {
        drawing.rect(x + 4, y + 4, CARD.width, CARD.height, {
          fill: "#f6f8fa",
          stroke: "#c6cdd5",
          rx: 4,
        });
      }
      drawing.rect(x, y, CARD.width, CARD.height, {
        fill: "#ffffff",
        stroke: shared ?? "#c6cdd5",
        "stroke-width": shared === undefined ? 1 : 2,
        rx: 4,
      });
      const colour =
        classColours.find(([pattern]) => pattern.test(device.classCode ?? ""))?.[1] ?? OTHER_COLOUR;
      drawing.rect(x + 1.5, y + 4, 4, CARD.height - 8, { fill: colour, rx: 2 });
      const badge = label === "" ? 0 : Math.max(26, textWidth(label, BADGE) + 12);
      const room = CARD.width - 18 - (badge === 0 ? 0 : badge + 8);
      const short = device.bdf === null ? device.name : device.bdf.replace(/^0000:/, "");
      const name = count > 1 ? `${count} × ${device.className}` : short;
      const style = count > 1 ? { ...NAME, mono: false } : NAME;
      drawing.text(x + 12, y + 17, fitText(name, room, style), style);
      const rest = room - textWidth(name, NAME) - 6;
      if (count === 1 && rest > 30) {
        const left = x + 12 + textWidth(name, NAME) + 6;
        drawing.text(left, y + 17, fitText(device.className, rest, SMALL), SMALL);
      }
      const what = [count > 1 ? `from ${short}` : "", describe(card)].filter((one) => one !== "");
      drawing.text(x + 12, y + 33, fitText(what.join(" · "), CARD.width - 20, SMALL), SMALL);
      if (badge > 0) this.#drawBadge(x + CARD.width - badge - 6, y + 6, badge, label, shared);
    });
  }

  #drawBadge(x: number, y: number, width: number, label: string, shared: string | undefined): void {
    const fill = shared ?? "#eaeef2";
    this.#drawing.rect(x, y, width, 15, { fill, rx: 7.5 });
    const style = { ...BADGE, fill: shared === undefined ? "#424a53" : "#ffffff" };
    this.#drawing.text(x + width / 2, y + 11, label, style);
  }

  /** A curve from each chip that is walked from afar to the IOMMU that walks it. */
  #drawWalks(): void {
    for (const { x, y, walker } of this.#farChips) {
      const unit = this.#unitAt.get(walker);
      if (unit === undefined) continue;
      const bend = Math.max(x, unit.x) + 30;
      const d = `M${at(unit.x)} ${at(unit.y)}C${at(bend)} ${at(unit.y)} ${at(bend)} ${at(y)} ${at(x)} ${at(y)}`;
      this.#drawing.path(d, {
        stroke: REMOTE.stroke,
        "stroke-width": 1.5,
        "stroke-dasharray": "6 3",
        fill: "none",
        "marker-end": "url(#arrow)",
      });
    }
  }

  #drawLegend(x: number, y: number): void {
    const drawing = this.#drawing;
    const entries: [string, string][] = [
      ["#d9822b", "storage"],
      ["#2f6fde", "network"],
      ["#1f9d55", "display, accelerator"],
      ["#8e5bd0", "USB"],
      ["#8c959f", "bridge"],
      [OTHER_COLOUR, "other"],
    ];
    let left = x;
    for (const [colour, name] of entries) {
      drawing.rect(left, y, 4, 14, { fill: colour, rx: 2 });
      drawing.text(left + 9, y + 11, name, SMALL);
      left += 24 + textWidth(name, SMALL);
    }
    const badge = "number at the right: group; coloured where several devices share it";
    const undrawn = this.#undrawn === 0 ? "" : `; ${this.#undrawn} more cards are not drawn`;
    drawing.text(x, y + 30, badge + undrawn, SMALL);
  }
}

const kindNames = {
  vtd: "VT-d",
  amd: "AMD-Vi",
  smmuv2: "SMMUv2",
  smmuv3: "SMMUv3",
  "virtio-pci": "virtio-iommu",
  "virtio-mmio": "virtio-iommu",
  other: "IOMMU",
} as const;

const ARROW =
  '<defs><marker id="arrow" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7" ' +
  'orient="auto"><path d="M0 0L8 4L0 8z" fill="#e03131"/></marker></defs>\n';

function describe({ device }: Card): string {
  const ids = device.vendor === null ? "" : `${device.vendor}:${device.device}`;
  const facts = [device.description ?? ids];
  if (device.driver !== null) facts.push(device.driver);
  if (device.virtualFunctions > 0) facts.push(`${device.virtualFunctions} VFs`);
  const isPort = device.portType === "root-port" || device.portType === "downstream";
  if (isPort && device.acs === "missing") facts.push("no ACS");
  if (device.ats === "enabled") facts.push("ATS");
  return facts.filter((one) => one !== "").join(" · ");
}

function tooltip(card: Card): string {
  const { device, count } = card;
  const head = count > 1 ? `${count} devices like ${device.name}` : device.name;
  const group = groupLabel(card);
  const where = group === "" || /group/.test(group) ? group : `group ${group}`;
  return [head, device.className, device.description, where === "" ? null : where]
    .filter((part) => part !== null)
    .join(", ");
}

function chipRows(chips: readonly Chip[]): Size {
  const widths = chips.map(({ text }) => textWidth(text, LABEL) + 44);
  const height = chips.length === 0 ? 0 : chips.length * 30 + 4;
  return { width: Math.min(620, Math.max(0, ...widths)), height };
}

function treeSize(card: Card): Size {
  let width = 0;
  let height = 0;
  for (const child of card.children) {
    const size = treeSize(child);
    width = Math.max(width, size.width);
    height += size.height + (height === 0 ? 0 : CARD.gap);
  }
  const below = width === 0 ? 0 : CARD.indent + width;
  return { width: CARD.width + below, height: Math.max(CARD.height, height) };
}

interface Placed {
  readonly card: Card;
  readonly dx: number;
  readonly dy: number;
}

/** Cards in rows: as many beside each other as fit a width. */
function busRows(cards: readonly Card[], width: number): { rows: Placed[]; height: number } {
  const rows: Placed[] = [];
  let dx = 0;
  let dy = 0;
  let rowHeight = 0;
  for (const card of cards) {
    const size = treeSize(card);
    if (dx > 0 && dx + size.width > width) {
      dx = 0;
      dy += rowHeight + CARD.gap;
      rowHeight = 0;
    }
    rows.push({ card, dx, dy });
    dx += size.width + CARD.gap + 4;
    rowHeight = Math.max(rowHeight, size.height);
  }
  return { rows, height: dy + rowHeight };
}

/** A unit's box: as wide as its widest tree, or two cards. */
function unitSize(unit: Unit): Size {
  let inner = 2 * CARD.width + CARD.gap + 4;
  for (const { cards } of unit.buses) {
    for (const card of cards) inner = Math.max(inner, treeSize(card).width);
  }
  let height = 30;
  for (const { cards } of unit.buses) height += 18 + busRows(cards, inner).height + 8;
  return { width: inner + 2 * PAD, height: height + 4 };
}
