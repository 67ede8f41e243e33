/**
 * Features: values that a driver sets and reads (1.4, 5.14 and 5.21, figures 271 to 301).
 *
 * A feature is a row of the table: its value at first, which bits can be set, and what values are
 * refused. None can be saved over a reset, none belongs to a namespace but Error Recovery.
 */
import { ARBITRATION_BURST, WARNING_TEMPERATURE } from "./identify.ts";
import { Feature, NAMESPACE, NAMESPACE_ALL, Sqe, Status } from "./protocol.ts";

interface Row {
  readonly initial: number;
  /** Bits that can be set. */
  readonly mask: number;
  /** Whether a value, with the bits outside the mask still in it, is refused. */
  readonly isRefused?: (value: number) => boolean;
  readonly isNamespace?: boolean;
}

const table = new Map<number, Row>([
  [Feature.ARBITRATION, { initial: ARBITRATION_BURST, mask: 0xffff_ff07 }],
  [
    Feature.POWER_MANAGEMENT,
    { initial: 0, mask: 0xff, isRefused: (value) => (value & 0x1f) !== 0 },
  ],
  [
    Feature.ERROR_RECOVERY,
    { initial: 0, mask: 0xffff, isRefused: (value) => value > 0xffff, isNamespace: true },
  ],
  [Feature.VOLATILE_WRITE_CACHE, { initial: 1, mask: 1 }],
  [Feature.INTERRUPT_COALESCING, { initial: 0, mask: 0xffff }],
  [Feature.WRITE_ATOMICITY, { initial: 0, mask: 1 }],
  [Feature.ASYNC_EVENTS, { initial: 0, mask: 0xff }],
]);

/** Selects of Get Features. */
const Select = { CURRENT: 0, DEFAULT: 1, SAVED: 2, CAPABILITIES: 3 } as const;
const CHANGEABLE = 4;
const OF_NAMESPACE = 2;
const SAVE = 0x8000_0000;
const UNDER = 1;

/** What {@link Features.save} gives. */
export interface FeatureState {
  readonly values: readonly (readonly [number, number])[];
  readonly over: number;
  readonly under: number;
  readonly vectors: readonly number[];
}

/** The features of one controller. */
export class Features {
  /** Result of the last command: the completion's first word. */
  result = 0;
  /** Kelvin: thresholds of the composite temperature. */
  over = WARNING_TEMPERATURE;
  under = 0;
  readonly #queues: number;
  readonly #values = new Map<number, number>();
  /** By vector: whether coalescing is disabled. */
  readonly #vectors: number[];

  constructor(queues: number) {
    this.#queues = queues;
    this.#vectors = new Array(queues + 1).fill(0);
    this.reset();
  }

  /** A value of the table. */
  value(feature: number): number {
    return this.#values.get(feature)!;
  }

  reset(): void {
    for (const [feature, { initial }] of table) this.#values.set(feature, initial);
    this.over = WARNING_TEMPERATURE;
    this.under = 0;
    this.#vectors.fill(0);
  }

  /** Get Features. @returns a status; {@link result} is set */
  get(command: Uint32Array): number {
    const feature = command[Sqe.CDW10]! & 0xff;
    const select = (command[Sqe.CDW10]! >>> 8) & 7;
    if (!this.#isKnown(feature) || select > Select.CAPABILITIES) return Status.INVALID_FIELD;
    const isNamespace = table.get(feature)?.isNamespace ?? false;
    this.result = isNamespace ? CHANGEABLE | OF_NAMESPACE : CHANGEABLE;
    if (select === Select.CAPABILITIES) return Status.SUCCESS;
    return this.#read(feature, command[Sqe.CDW11]!, select !== Select.CURRENT);
  }

  /**
   * Set Features.
   *
   * @param hasQueues - whether an I/O queue exists: their number is settled then
   */
  set(command: Uint32Array, hasQueues: boolean): number {
    const feature = command[Sqe.CDW10]! & 0xff;
    const value = command[Sqe.CDW11]!;
    const namespace = command[Sqe.NAMESPACE]!;
    this.result = 0;
    if (!this.#isKnown(feature)) return Status.INVALID_FIELD;
    if (command[Sqe.CDW10]! >= SAVE) return Status.FEATURE_NOT_SAVEABLE;
    if (namespace !== 0 && namespace !== NAMESPACE_ALL) {
      if (namespace !== NAMESPACE) return Status.INVALID_NAMESPACE;
      if (table.get(feature)?.isNamespace !== true) return Status.FEATURE_NOT_NAMESPACE;
    }
    const row = table.get(feature);
    if (row === undefined) return this.#setSpecial(feature, value, hasQueues);
    if (row.isRefused?.(value) === true) return Status.INVALID_FIELD;
    this.#values.set(feature, (value & row.mask) >>> 0);
    return Status.SUCCESS;
  }

  save(): FeatureState {
    const { over, under } = this;
    return { values: [...this.#values], over, under, vectors: [...this.#vectors] };
  }

  /** @param state - checked by the caller to be of the right shape */
  restore(state: FeatureState): void {
    this.reset();
    for (const [feature, value] of state.values) {
      const row = table.get(feature);
      if (row !== undefined) this.#values.set(feature, (value & row.mask) >>> 0);
    }
    this.over = state.over;
    this.under = state.under;
    for (let vector = 0; vector < this.#vectors.length; vector += 1)
      this.#vectors[vector] = state.vectors[vector] === 1 ? 1 : 0;
  }

  #isKnown(feature: number): boolean {
    return (
      table.has(feature) ||
      feature === Feature.NUMBER_OF_QUEUES ||
      feature === Feature.TEMPERATURE_THRESHOLD ||
      feature === Feature.INTERRUPT_VECTOR
    );
  }

  #read(feature: number, argument: number, isDefault: boolean): number {
    switch (feature) {
      case Feature.NUMBER_OF_QUEUES:
        this.result = ((this.#queues - 1) << 16) | (this.#queues - 1);
        return Status.SUCCESS;
      case Feature.TEMPERATURE_THRESHOLD: {
        const which = thresholdOf(argument);
        if (which < 0) return Status.INVALID_FIELD;
        const initial = which === UNDER ? 0 : WARNING_TEMPERATURE;
        this.result = isDefault ? initial : which === UNDER ? this.under : this.over;
        return Status.SUCCESS;
      }
      case Feature.INTERRUPT_VECTOR: {
        const vector = argument & 0xffff;
        if (vector >= this.#vectors.length) return Status.INVALID_FIELD;
        this.result = vector | (isDefault ? 0 : this.#vectors[vector]! << 16);
        return Status.SUCCESS;
      }
      default:
        this.result = isDefault ? table.get(feature)!.initial : this.value(feature);
        return Status.SUCCESS;
    }
  }

  #setSpecial(feature: number, value: number, hasQueues: boolean): number {
    if (feature === Feature.NUMBER_OF_QUEUES) {
      if (hasQueues) return Status.COMMAND_SEQUENCE;
      if ((value & 0xffff) === 0xffff || value >>> 16 === 0xffff) return Status.INVALID_FIELD;
      // However many are asked for, so many there are.
      this.result = ((this.#queues - 1) << 16) | (this.#queues - 1);
      return Status.SUCCESS;
    }
    if (feature === Feature.TEMPERATURE_THRESHOLD) {
      const which = thresholdOf(value);
      if (which < 0) return Status.INVALID_FIELD;
      if (which === UNDER) this.under = value & 0xffff;
      else this.over = value & 0xffff;
      return Status.SUCCESS;
    }
    const vector = value & 0xffff;
    if (vector >= this.#vectors.length) return Status.INVALID_FIELD;
    this.#vectors[vector] = (value >>> 16) & 1;
    return Status.SUCCESS;
  }
}

/** Over 0, under 1, of the composite temperature or of all sensors; −1 for one that is not there. */
function thresholdOf(argument: number): number {
  const sensor = (argument >>> 16) & 15;
  const which = (argument >>> 20) & 3;
  return (sensor === 0 || sensor === 15) && which <= UNDER ? which : -1;
}
