/**
 * Whose memory the devices of one machine see: connections of the same virtual machine have files of
 * its memory in common, those of two machines have none. A device whose client brings a file while
 * it shares nothing with another device in use belongs to another machine, and is refused its
 * memory: a virtio-iommu of one guest must not steer DMA into another.
 */
import { Errno } from "../../errno.ts";
import { sizeText } from "../../units.ts";
import type { System } from "../system/system.ts";
import type { FileHold, MemoryFiles } from "./ports.ts";

/** Files of one device, by name, and how often each is held. */
type Holds = Map<string, number>;

/** The files of one machine. */
export class MachineFiles {
  readonly #system: Pick<System, "status">;
  readonly #files: MemoryFiles;
  readonly #log: (line: string) => void;
  readonly #bytesMax: number;
  readonly #devices = new Map<string, Holds>();

  /**
   * @param files - where they are looked at in memory
   * @param bytesMax - of each device's regions together: what is held is brought in
   */
  constructor(
    system: Pick<System, "status">,
    files: MemoryFiles,
    log: (line: string) => void = () => {},
    bytesMax: number = Number.POSITIVE_INFINITY,
  ) {
    this.#bytesMax = bytesMax;
    this.#system = system;
    this.#files = files;
    this.#log = log;
  }

  /** The files as one device holds them. */
  of(device: string): MemoryFiles {
    const holds: Holds = this.#devices.get(device) ?? new Map();
    this.#devices.set(device, holds);
    let held = 0;
    let hasTold = false;
    const tell = (line: string) => {
      if (!hasTold) this.#log(`${device}: ${line}`);
      hasTold = true;
    };
    return {
      trim: () => {
        hasTold = false;
        this.#files.trim?.();
      },
      hold: (fd, offset, bytes, access) => {
        const status = this.#system.status(fd);
        if (typeof status === "number") return -status;
        const file = `${status.device}:${status.inode}`;
        const stranger = holds.has(file) ? null : this.#strangerTo(device, file);
        if (stranger !== null) {
          tell(
            `its memory is not that of ${stranger}: the devices of one machine have to ` +
              "be given to one QEMU",
          );
          return Errno.EPERM;
        }
        if (held + bytes > this.#bytesMax) {
          tell(`its memory is more than the machine has (${sizeText(BigInt(held + bytes))})`);
          return Errno.ENOMEM;
        }
        const hold = this.#files.hold(fd, offset, bytes, access);
        if (typeof hold === "number") return hold;
        held += bytes;
        return counted(hold, holds, file, () => {
          held -= bytes;
        });
      },
    };
  }

  /** A device in use that has no file in common with this one, were it to hold another file. */
  #strangerTo(device: string, file: string): string | null {
    const own = this.#devices.get(device)!;
    for (const [other, files] of this.#devices) {
      if (other === device || files.size === 0 || files.has(file)) continue;
      if (![...own.keys()].some((each) => files.has(each))) return other;
    }
    return null;
  }
}

function counted(hold: FileHold, holds: Holds, file: string, released: () => void): FileHold {
  holds.set(file, (holds.get(file) ?? 0) + 1);
  return {
    pieces: hold.pieces,
    release() {
      hold.release();
      released();
      const left = holds.get(file)! - 1;
      if (left === 0) holds.delete(file);
      else holds.set(file, left);
    },
  };
}
