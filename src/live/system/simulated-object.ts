/**
 * What descriptors of the simulated kernel stand for: things that live while somebody holds them.
 */

/** An object with a count of its holders: descriptors, and messages on their way. */
export interface Counted {
  references: number;
  /** The last holder has gone. @returns what this held in turn */
  close(): readonly Counted[];
}

/** One holder less; the last one closes it. Chains are finite: each step drops a reference. */
export function release(object: Counted): void {
  const dropped: Counted[] = [object];
  for (let next = dropped.pop(); next !== undefined; next = dropped.pop()) {
    next.references -= 1;
    if (next.references <= 0) dropped.push(...next.close());
  }
}

/** A counter that wakes who waits for it (eventfd). */
export class SimulatedEvent implements Counted {
  readonly kind = "event";
  count = 0;
  references = 0;

  close(): readonly Counted[] {
    return [];
  }
}
