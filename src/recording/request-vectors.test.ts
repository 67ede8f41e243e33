import { describe, expect, it } from "vitest";
import type { RequestRow, VectorDevice } from "./request-vector.ts";
import { RequestVectorReader } from "./request-vectors.ts";

const DEVICE =
  '{"qemu": "11.1.3", "seed": 1, "device_features": "0x10130000077", "acked": "0x100000077", ' +
  '"config": "00f0ffffffffffff0000000000000000ffffffff7f00000000000000ffffffff0002000001000000", ' +
  '"endpoints": ["0x18", "0x28"], "note": "00:03.0 nvme"}';

interface Seen {
  readonly line: number;
  readonly index: number;
  readonly request: string;
  readonly writable: number;
  readonly used: number;
  readonly status: number;
  readonly reply: string | null;
}

function read(text: string) {
  const devices: VectorDevice[] = [];
  const rows: Seen[] = [];
  const hex = (bytes: Uint8Array, length: number) =>
    Buffer.from(bytes.subarray(0, length)).toString("hex");
  const reader = new RequestVectorReader({
    device: (device) => devices.push(device),
    row: (row: RequestRow) =>
      rows.push({
        line: row.line,
        index: row.index,
        request: hex(row.request, row.requestBytes),
        writable: row.writableBytes,
        used: row.usedBytes,
        status: row.status,
        reply: row.replyBytes < 0 ? null : hex(row.reply, row.replyBytes),
      }),
  });
  reader.push(new TextEncoder().encode(text));
  reader.end();
  return { devices, rows, reader };
}

describe("vectors of requests", () => {
  it("give the device and each request", () => {
    const { devices, rows, reader } = read(
      `${DEVICE}\n{"i": 0, "req": "0200000002000000280000000000000000000000", "tail": 4, ` +
        `"used_len": 4, "status": 6, "buf": null}\n` +
        `{"i": 1, "req": "05000000", "tail": 516, "used_len": 0, "status": null, "buf": "00ffA0"}\n`,
    );
    expect(devices).toHaveLength(1);
    expect(devices[0]).toMatchObject({
      peer: "qemu",
      peerVersion: "11.1.3",
      offered: 0x101_3000_0077n,
      acknowledged: 0x1_0000_0077n,
      endpoints: [0x18, 0x28],
      line: 1,
    });
    expect(devices[0]?.config).toHaveLength(40);
    expect(devices[0]?.config[1]).toBe(0xf0);
    expect(rows).toEqual([
      {
        line: 2,
        index: 0,
        request: "0200000002000000280000000000000000000000",
        writable: 4,
        used: 4,
        status: 6,
        reply: null,
      },
      {
        line: 3,
        index: 1,
        request: "05000000",
        writable: 516,
        used: 0,
        status: -1,
        reply: "00ffa0",
      },
    ]);
    expect(reader.notes).toMatchObject({ lines: 3, events: 2, unreadable: 0 });
  });

  it("may have their keys in any order, without blanks, with further keys", () => {
    const { rows } = read(
      '{"status":0,"note":"a \\u00e9","buf":null,"x":-1.5e3,"y":true,"used_len":4,"tail":4,"req":"ff00","i":7}\n',
    );
    expect(rows).toEqual([]);
    const plain = read(
      '{"status":0,"note":"hello","buf":null,"x":-1.5E3,"y":true,"used_len":4,"tail":4,"req":"ff00","i":7}\r\n',
    );
    expect(plain.rows[0]).toMatchObject({ index: 7, request: "ff00", status: 0 });
  });

  it("do not carry a value over from the line before", () => {
    const { rows } = read(
      '{"req": "aabbccdd", "tail": 16, "used_len": 8, "status": 3, "buf": "0102"}\n' +
        '{"req": "", "tail": 0, "used_len": 0, "status": null}\n',
    );
    expect(rows[1]).toEqual({
      line: 2,
      index: 0,
      request: "",
      writable: 0,
      used: 0,
      status: -1,
      reply: null,
    });
  });

  it("report lines that are torn or senseless, and go on", () => {
    const row = '{"i": 1, "req": "00", "tail": 4, "used_len": 4, "status": 6, "buf": null}';
    const bad = [
      row.replace('"tail": 4, ', ""),
      row.replace('"used_len": 4, ', ""),
      row.replace(', "status": 6', ""),
      row.replace('"status": 6', '"status": null'),
      row.slice(0, 40),
      row.slice(10),
      row.replace('"00"', '"0"'),
      row.replace('"00"', '"0g"'),
      row.replace('"00"', "null"),
      row.replace('"status": 6', '"status": 256'),
      row.replace('"tail": 4', '"tail": -4'),
      row.replace('"tail": 4', '"tail": 99999999'),
      `${row}${row}`,
      row.replace("}", ",}"),
      "[]",
      '"text"',
      DEVICE.replace("00f0", "zzz0"),
      DEVICE.replace("0x18", "0x1ffffffff"),
    ];
    const { rows, devices, reader } = read(`${[row, ...bad, row].join("\n")}\n`);
    expect(rows.map(({ line }) => line)).toEqual([1, bad.length + 2]);
    expect(devices).toEqual([]);
    expect(reader.notes.unreadable).toBe(bad.length);
  });

  it("may be longer than a trace line", () => {
    const long = "ab".repeat(100_000);
    const { rows } = read(`{"req": "${long}", "tail": 4, "used_len": 4, "status": 0}\n`);
    expect(rows[0]?.request).toBe(long);
  });
});
