/**
 * Tables of our own in front of a real kernel: an RSDP and an XSDT that name the platform's tables
 * where its firmware put them, and ours in place of those of the same signature. QEMU lists its own
 * tables first and Linux takes the first, so adding one with `-acpitable` would not do (F17).
 */
import { headerFields, seal } from "../../src/firmware/acpi/header.ts";
import { defaultIds, headerValues } from "../../src/firmware/acpi/table-writer.ts";
import { layout } from "../../src/wire/layout.ts";

const RSDP_BYTES = 36;
const Xsdt = layout("xsdt", 36, headerFields);

/** Address of each table that a kernel's log names, but those that FADT leads to. */
export function tableAddresses(dmesg: string): Map<string, bigint> {
  const addresses = new Map<string, bigint>();
  for (const match of dmesg.matchAll(/ACPI: ([A-Z0-9]{4}) (0x[0-9A-F]{16}) /g)) {
    const [, signature, address] = match;
    if (!["RSDP", "RSDT", "XSDT", "DSDT", "FACS"].includes(signature!)) {
      addresses.set(signature!, BigInt(address!));
    }
  }
  return addresses;
}

/** Builds RSDP, XSDT and tables for guest memory at `base`. */
export function privateTables(
  base: bigint,
  platform: ReadonlyMap<string, bigint>,
  own: readonly Uint8Array[],
): Uint8Array {
  const signatureOf = (table: Uint8Array) => String.fromCharCode(...table.subarray(0, 4));
  const kept = [...platform].filter(
    ([signature]) => !own.some((table) => signatureOf(table) === signature),
  );
  const xsdtBytes = Xsdt.bytes + 8 * (kept.length + own.length);
  const xsdtAt = 64;
  let next = (xsdtAt + xsdtBytes + 63) & ~63;
  const places = own.map((table) => {
    const at = next;
    next = (next + table.length + 63) & ~63;
    return at;
  });
  const out = new Uint8Array(next);
  const view = new DataView(out.buffer);
  own.forEach((table, index) => {
    out.set(table, places[index]!);
  });
  Xsdt.encode(headerValues("XSDT", 1, defaultIds), view, xsdtAt);
  const entries = [
    ...kept.map(([, address]) => address),
    ...places.map((place) => base + BigInt(place)),
  ];
  entries.forEach((address, index) => {
    view.setBigUint64(xsdtAt + Xsdt.bytes + 8 * index, address, true);
  });
  seal(out.subarray(xsdtAt, xsdtAt + xsdtBytes));
  putRsdp(out.subarray(0, RSDP_BYTES), base + BigInt(xsdtAt));
  return out;
}

/** Root pointer, revision 2: ACPI 6.5, 5.2.5.3. */
function putRsdp(rsdp: Uint8Array, xsdt: bigint): void {
  const view = new DataView(rsdp.buffer, rsdp.byteOffset, rsdp.byteLength);
  rsdp.set(Buffer.from("RSD PTR "));
  rsdp.set(Buffer.from(defaultIds.oemId.padEnd(6)), 9);
  rsdp[15] = 2;
  view.setUint32(20, RSDP_BYTES, true);
  view.setBigUint64(24, xsdt, true);
  const sum = (bytes: Uint8Array) => bytes.reduce((total, byte) => (total + byte) & 0xff, 0);
  rsdp[8] = (0x100 - sum(rsdp.subarray(0, 20))) & 0xff;
  rsdp[32] = (0x100 - sum(rsdp)) & 0xff;
}
