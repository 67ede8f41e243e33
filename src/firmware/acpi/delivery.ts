/**
 * How a table reaches a guest's Linux, and whether it is then the one that counts.
 *
 * Source: QEMU hw/acpi/core.c: acpi_table_add, hw/i386/acpi-build.c (its own tables come first);
 * Linux 7.2 drivers/acpi/tables.c: acpi_table_initrd_init, acpi_table_initrd_override,
 * acpi_table_initrd_scan.
 */
import { signatureAt } from "./decode.ts";
import { HEADER_BYTES } from "./header.ts";
import { idsOf } from "./table-writer.ts";

/** QEMU's `-acpitable`, or a cpio archive in front of the initial RAM disk. */
export type DeliveryWay = "acpitable" | "initrd";

/** The guest that it goes to. */
export interface DeliveryTarget {
  readonly board: "q35" | "pc" | "virt" | "microvm";
  /** Tables that the platform has by itself. */
  readonly tables: readonly Uint8Array[];
}

/** What comes of it. */
export interface Delivery {
  /**
   * `used`: it is the only one of its kind; `replaces` the platform's; `shadowed`: it is there, and
   * the platform's is read; `refused`: it does not get there.
   */
  readonly outcome: "used" | "replaces" | "shadowed" | "refused";
  readonly why: string;
}

/** Bytes that `-acpitable` takes. */
const ACPITABLE_BYTES_MAX = 0xffff;
/** What Linux takes out of an initial RAM disk; VIOT is not among it. */
const initrdSignatures = new Set(
  (
    "BERT BGRT CPEP ECDT EINJ ERST HEST APIC MSCT SBST SLIT SRAT ASF! BOOT DBGP DMAR HPET IBFT " +
    "IVRS MCFG MCHI SLIC SPCR SPMI TCPA UEFI WAET WDAT WDDT WDRT DSDT FACP PSDT RSDT XSDT SSDT " +
    "IORT NFIT HMAT PPTT NHLT AEST CEDT AGDI NBFT"
  ).split(" "),
);

/**
 * Says what becomes of a table.
 *
 * @example
 * deliver(viot, "initrd", { board: "q35", tables: [] }).outcome; // "refused"
 */
export function deliver(table: Uint8Array, way: DeliveryWay, target: DeliveryTarget): Delivery {
  if (table.length < HEADER_BYTES) {
    return refused(`a table has ${HEADER_BYTES} bytes or more, this one ${table.length}`);
  }
  return way === "acpitable" ? byOption(table, target) : byInitrd(table, target);
}

/** QEMU writes length and checksum anew, so that wrong ones do no harm. */
function byOption(table: Uint8Array, { board, tables }: DeliveryTarget): Delivery {
  if (board === "virt") return refused("QEMU for Arm has no option -acpitable");
  if (board === "microvm") return refused("microvm takes the option and drops the table");
  if (table.length > ACPITABLE_BYTES_MAX) {
    return refused(`it has ${table.length} bytes, and QEMU takes ${ACPITABLE_BYTES_MAX}`);
  }
  if (sameKind(table, tables).length > 0) {
    return { outcome: "shadowed", why: "QEMU lists its own first, and Linux reads the first" };
  }
  return { outcome: "used", why: "it is the only one of its signature" };
}

function byInitrd(table: Uint8Array, { tables }: DeliveryTarget): Delivery {
  const signature = signatureAt(table, 0);
  if (!initrdSignatures.has(signature)) {
    return refused(
      `Linux logs \`ACPI OVERRIDE: Unknown signature\`: ${signature} is not among them`,
    );
  }
  const view = new DataView(table.buffer, table.byteOffset, table.byteLength);
  if (view.getUint32(4, true) !== table.length)
    return refused("its length is not that of the file");
  if (table.reduce((sum, byte) => (sum + byte) & 0xff, 0) !== 0)
    return refused("its checksum is wrong");
  const same = sameKind(table, tables);
  if (same.length === 0) return { outcome: "used", why: "the platform has none: it is added" };
  const ids = idsOf(table);
  const equal = same
    .map(idsOf)
    .find(({ oemId, oemTableId }) => oemId === ids.oemId && oemTableId === ids.oemTableId);
  if (equal === undefined) {
    return { outcome: "shadowed", why: "OEM id or OEM table id differ: it is added behind" };
  }
  if (equal.oemRevision < ids.oemRevision) {
    return { outcome: "replaces", why: "same OEM ids, and a higher OEM revision" };
  }
  return { outcome: "shadowed", why: `its OEM revision is not above ${equal.oemRevision}` };
}

function sameKind(table: Uint8Array, tables: readonly Uint8Array[]): Uint8Array[] {
  const signature = signatureAt(table, 0);
  return tables.filter((one) => one.length >= HEADER_BYTES && signatureAt(one, 0) === signature);
}

function refused(why: string): Delivery {
  return { outcome: "refused", why };
}
