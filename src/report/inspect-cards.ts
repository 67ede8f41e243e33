/**
 * The devices of a result as trees of cards for a drawing; what looks the same is drawn once, with
 * how many there are, so that ten thousand devices still make a picture.
 */
import type { InspectedDevice, InspectResult } from "../host/inspect-result.ts";
import { numberListText } from "../topology/number-list.ts";

/** One card: a device, or several that look alike, with what is below. */
export interface Card {
  readonly device: InspectedDevice;
  /** Devices that it stands for. */
  readonly count: number;
  /** Groups of those. */
  readonly groups: readonly number[];
  readonly children: readonly Card[];
}

/** Cards of one root bus, or of the platform. */
export interface CardBus {
  readonly name: string;
  readonly node: number | null;
  readonly iommu: string | null;
  readonly cards: readonly Card[];
}

/** Siblings that look alike and are still drawn one by one. */
const ALIKE_MAX = 4;
/** Devices beyond which alike ones are folded even where they are few. */
const CROWD = 300;
/** Bridges below each other that are drawn. */
const DEPTH_MAX = 16;

/** Makes the cards. */
export function cardBuses(result: InspectResult): CardBus[] {
  const known = new Set(result.devices.map(({ name }) => name));
  const below = new Map<string, InspectedDevice[]>();
  const buses = new Map<string, InspectedDevice[]>();
  for (const device of result.devices) {
    const isBelow = device.parent !== null && known.has(device.parent);
    const [map, key] = isBelow
      ? ([below, device.parent!] as const)
      : ([buses, busKey(device)] as const);
    const list = map.get(key);
    if (list === undefined) map.set(key, [device]);
    else list.push(device);
  }
  const alikeMax = result.devices.length > CROWD ? 1 : ALIKE_MAX;
  return [...buses.values()].map((devices): CardBus => {
    const first = devices[0]!;
    const cards = folded(
      devices.map((device) => cardOf(device, below, alikeMax, 0)),
      alikeMax,
    );
    const iommu = devices.find((device) => device.iommu !== null)?.iommu ?? null;
    return { name: busName(first), node: first.node, iommu, cards };
  });
}

function busKey(device: InspectedDevice): string {
  return `${device.node}/${busName(device)}`;
}

function busName({ bdf }: InspectedDevice): string {
  return bdf === null ? "platform" : `bus ${bdf.slice(0, bdf.lastIndexOf(":"))}`;
}

function cardOf(
  device: InspectedDevice,
  below: ReadonlyMap<string, readonly InspectedDevice[]>,
  alikeMax: number,
  depth: number,
): Card {
  const under = depth < DEPTH_MAX ? (below.get(device.name) ?? []) : [];
  const children = folded(
    under.map((one) => cardOf(one, below, alikeMax, depth + 1)),
    alikeMax,
  );
  return { device, count: 1, groups: device.group === null ? [] : [device.group], children };
}

/** What makes two cards look alike. */
function lookOf({ device, children, count }: Card): string {
  const { className, driver, node, iommu, vendor, device: id, group, physicalFunction } = device;
  const isVirtual = physicalFunction !== null;
  const own = [className, driver, node, iommu, vendor, id, group === null, isVirtual];
  return `${own.join("|")}|${count}(${children.map(lookOf).join(",")})`;
}

function folded(cards: readonly Card[], alikeMax: number): Card[] {
  const alike = new Map<string, Card[]>();
  for (const card of cards) {
    const look = lookOf(card);
    const list = alike.get(look);
    if (list === undefined) alike.set(look, [card]);
    else list.push(card);
  }
  // Each stands where the first of its like stood, and what is not folded keeps its order.
  const shown = new Map<Card, Card>();
  for (const list of alike.values()) {
    if (list.length > alikeMax) shown.set(list[0]!, merged(list));
    else for (const card of list) shown.set(card, card);
  }
  return cards.flatMap((card) => shown.get(card) ?? []);
}

/** One card for several; what is below it stands for what is below all of them. */
function merged(cards: readonly Card[]): Card {
  const first = cards[0]!;
  return {
    device: first.device,
    count: cards.reduce((sum, { count }) => sum + count, 0),
    groups: cards.flatMap(({ groups }) => groups),
    children: first.children.map((_child, at) =>
      merged(cards.map(({ children }) => children[at]!)),
    ),
  };
}

/** The groups of a card: `11`, `20-83`, or how many. */
export function groupLabel(card: Card): string {
  const ids = [...new Set(card.groups)].sort((a, b) => a - b);
  if (ids.length === 0) return "";
  const text = numberListText(ids);
  return text.length <= 9 ? text : `${ids.length} groups`;
}
