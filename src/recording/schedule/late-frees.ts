/**
 * Frees that were overtaken: an interrupt between an unmap event and the free that follows it frees
 * other ranges first, although its events come later.
 *
 * Source: drivers/iommu/dma-iommu.c:__iommu_dma_unmap (unmap, then free or queue). A soft interrupt
 * is interrupted by a hard one, a task by both, on the same CPU. Which order it was shows when the
 * addresses are used again: what was freed last is handed out first.
 */
import { Level, reordered, type ScheduleEvents, Shift } from "./schedule-events.ts";

/** Events that one free may be overtaken by. */
const OVERTAKEN_BY_MAX = 512;

/** By event: the last free that must have overtaken it if both were given back together, or −1. */
export function findLateFrees(events: ScheduleEvents): Int32Array {
  const targets = new Int32Array(events.count);
  for (let event = 0; event < events.count; event += 1) {
    targets[event] = overtakenBy(events, event);
  }
  return targets;
}

/** Puts overtaken frees where they took effect. @returns the same object when there are none */
export function settleLateFrees(events: ScheduleEvents): ScheduleEvents {
  const targets = findLateFrees(events);
  const behind = new Map<number, number[]>();
  const shifted = new Uint8Array(events.count);
  for (let event = 0; event < events.count; event += 1) {
    const target = targets[event]!;
    if (target < 0) continue;
    shifted[event] = Shift.freedLater;
    const list = behind.get(target);
    if (list === undefined) behind.set(target, [event]);
    else list.push(event);
  }
  if (behind.size === 0) return events;

  const order = new Int32Array(events.count);
  let placed = 0;
  const place = (event: number): void => {
    order[placed] = event;
    placed += 1;
    const list = behind.get(event);
    if (list === undefined) return;
    list.sort((a, b) => usedAgain(events, b) - usedAgain(events, a) || a - b);
    for (const late of list) place(late);
  };
  for (let event = 0; event < events.count; event += 1) {
    if (shifted[event] === Shift.none) place(event);
  }
  return reordered(events, order, shifted);
}

/** The last free of an interrupt that must have come before this one, −1 if none must. */
function overtakenBy(events: ScheduleEvents, event: number): number {
  const { isFree, level, nested, cpu, pid, order } = events;
  if (isFree[event] === 0 || level[event] === Level.hardIrq) return -1;
  const again = usedAgain(events, event);
  const end = Math.min(events.count, event + OVERTAKEN_BY_MAX);
  let target = -1;
  for (let later = event + 1; later < end; later += 1) {
    if (cpu[later] !== cpu[event]) continue;
    if (level[later]! <= level[event]!) break;
    // An interrupt that came after this level was left did not interrupt it.
    if (
      level[event] === Level.softIrq ? nested[later] !== Level.softIrq : pid[later] !== pid[event]
    ) {
      break;
    }
    if (isFree[later] === 1 && order[later] === order[event] && usedAgain(events, later) > again) {
      target = later;
    }
  }
  return target;
}

function usedAgain(events: ScheduleEvents, free: number): number {
  return events.reuse[free]! < 0 ? events.count : events.reuse[free]!;
}
