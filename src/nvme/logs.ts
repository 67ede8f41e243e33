/**
 * Log pages (1.4, 5.14.1): errors of commands, health, firmware, effects of commands.
 */
import type { Features } from "./features.ts";
import { ERROR_ENTRIES, FIRMWARE } from "./identify.ts";
import { AdminOpcode, IoOpcode, LogPage, PAGE, Sqe } from "./protocol.ts";
import { ErrorEntry, SmartLog } from "./structures.ts";

/** Kelvin. Nothing here gets warm. */
export const TEMPERATURE = 310;
const TEMPERATURE_WARNING = 2;
const SMART_UNIT = 512_000;
const NO_PLACE = 0xffff;

/** Effects of a command: it exists; it changes data. */
const SUPPORTED = 1;
const CHANGES_DATA = 2;

interface ErrorRecord {
  readonly number: number;
  readonly queue: number;
  readonly cid: number;
  readonly status: number;
  readonly block: bigint;
  readonly namespace: number;
}

/** Counters of the health log. */
export interface Health {
  bytesRead: number;
  bytesWritten: number;
  readCommands: number;
  writeCommands: number;
  mediaErrors: number;
}

/** What a controller logs. */
export class Logs {
  readonly health: Health = {
    bytesRead: 0,
    bytesWritten: 0,
    readCommands: 0,
    writeCommands: 0,
    mediaErrors: 0,
  };
  /** Errors so far. */
  errorCount = 0;
  readonly #features: Features;
  /** The last errors, newest first. */
  readonly #errors: ErrorRecord[] = [];

  constructor(features: Features) {
    this.#features = features;
  }

  /** Notes a command that failed. */
  noteError(queue: number, command: Uint32Array, status: number): void {
    this.errorCount += 1;
    if (this.#errors.length === ERROR_ENTRIES) this.#errors.pop();
    const block = (BigInt(command[Sqe.CDW11]!) << 32n) | BigInt(command[Sqe.CDW10]!);
    this.#errors.unshift({
      number: this.errorCount,
      queue,
      cid: command[Sqe.HEAD]! >>> 16,
      status,
      block: queue === 0 ? 0n : block,
      namespace: command[Sqe.NAMESPACE]!,
    });
  }

  /** Forgets the errors, as a reset of the controller does not: a reset of the machine. */
  clearErrors(): void {
    this.#errors.length = 0;
  }

  /** Critical warnings: bit 1 for a threshold passed. */
  get warnings(): number {
    const { over, under } = this.#features;
    return TEMPERATURE >= over || TEMPERATURE <= under ? TEMPERATURE_WARNING : 0;
  }

  /** A log page's bytes, or null when there is no such page. */
  page(identifier: number): Uint8Array | null {
    switch (identifier) {
      case LogPage.ERROR:
        return this.#errorPage();
      case LogPage.SMART:
        return this.#smartPage();
      case LogPage.FIRMWARE:
        return firmwarePage();
      case LogPage.CHANGED_NAMESPACES:
        return new Uint8Array(PAGE);
      case LogPage.EFFECTS:
        return effectsPage();
      default:
        return null;
    }
  }

  #errorPage(): Uint8Array {
    const bytes = new Uint8Array(ERROR_ENTRIES * ErrorEntry.bytes);
    const view = new DataView(bytes.buffer);
    for (const [index, error] of this.#errors.entries()) {
      const entry = {
        errorCount: BigInt(error.number),
        sqid: error.queue,
        cid: error.cid,
        status: (error.status << 1) & 0xffff,
        parameter: NO_PLACE,
        lba: error.block,
        nsid: error.namespace,
      };
      ErrorEntry.encode(entry, view, index * ErrorEntry.bytes);
    }
    return bytes;
  }

  #smartPage(): Uint8Array {
    const { health } = this;
    const units = (bytes: number) => BigInt(Math.ceil(bytes / SMART_UNIT));
    return SmartLog.bytesOf({
      criticalWarning: this.warnings,
      temperature: TEMPERATURE,
      availableSpare: 100,
      spareThreshold: 10,
      dataUnitsRead: units(health.bytesRead),
      dataUnitsWritten: units(health.bytesWritten),
      readCommands: BigInt(health.readCommands),
      writeCommands: BigInt(health.writeCommands),
      mediaErrors: BigInt(health.mediaErrors),
      errorEntries: BigInt(this.errorCount),
    });
  }
}

function firmwarePage(): Uint8Array {
  const bytes = new Uint8Array(512);
  bytes[0] = 1;
  bytes.set(
    Uint8Array.from(FIRMWARE, (character) => character.charCodeAt(0)),
    8,
  );
  return bytes;
}

/** Commands Supported and Effects (figure 199): a word for each admin, then each I/O opcode. */
function effectsPage(): Uint8Array {
  const bytes = new Uint8Array(PAGE);
  const words = new Uint32Array(bytes.buffer);
  for (const opcode of Object.values(AdminOpcode)) words[opcode] = SUPPORTED;
  for (const opcode of Object.values(IoOpcode)) words[256 + opcode] = SUPPORTED;
  for (const opcode of [IoOpcode.WRITE, IoOpcode.WRITE_ZEROES, IoOpcode.DATASET_MANAGEMENT])
    words[256 + opcode] = SUPPORTED | CHANGES_DATA;
  return bytes;
}
