/** What a kind of description of hardware has to offer, so that it can be read and written. */
import type { Machine, MachineFunction } from "../topology/machine.ts";
import type { TableIds } from "./acpi/table-writer.ts";
import type { DumpNode } from "./table-dump.ts";
import type { TableFinding } from "./table-finding.ts";

/** A file to be read. */
export interface DescriptionFile {
  readonly file: string;
  readonly bytes: Uint8Array;
}

/** A file that was read. */
export interface DescriptionDocument {
  readonly file: string;
  /** Signature or kind. */
  readonly kind: string;
  readonly bytes: number;
  /** Made when asked for: it has an object a field. */
  tree(): DumpNode;
  readonly findings: readonly TableFinding[];
}

/** What files of one family say together. */
export interface DescriptionReading {
  /** In the order of the files. */
  readonly documents: readonly DescriptionDocument[];
  /** The parts of the machine that they describe. */
  readonly machine: Machine;
}

/** Descriptions that are read together, since they speak of one machine. */
export interface DescriptionFamily {
  readonly name: string;
  /** What a file must be for this family, as a message says it. */
  readonly brief: string;
  recognises(bytes: Uint8Array): boolean;
  /**
   * Reads files that were recognised. Bad content becomes findings.
   *
   * @param functions - known functions of the machine, for ways through bridges
   * @throws StackError that names the file, when nothing can be made of it
   */
  read(
    files: readonly DescriptionFile[],
    functions: readonly MachineFunction[],
  ): DescriptionReading;
}

/** A description that can be written. */
export interface DescriptionKind {
  /** The word behind `--as`. */
  readonly name: string;
  readonly brief: string;
  /** Whether a terminal can show it. */
  readonly isText: boolean;
  /** @throws StackError `firmware/cannot-describe` */
  build(machine: Machine, ids: TableIds): Uint8Array;
}
