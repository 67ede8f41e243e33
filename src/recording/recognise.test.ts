import { describe, expect, it } from "vitest";
import { StackError } from "../errors.ts";
import { recordingKinds } from "./kinds.ts";
import { recognise } from "./recognise.ts";

async function* chunksOf(text: string | Uint8Array, size = 7) {
  const bytes = typeof text === "string" ? new TextEncoder().encode(text) : text;
  // One buffer for all chunks: a producer may do so.
  const chunk = new Uint8Array(size);
  for (let at = 0; at < bytes.length; at += size) {
    const part = bytes.subarray(at, at + size);
    chunk.set(part);
    yield chunk.subarray(0, part.length);
  }
}

async function kindOf(text: string): Promise<string> {
  const { kind, chunks } = await recognise("file", chunksOf(text));
  let again = "";
  for await (const chunk of chunks) again += new TextDecoder().decode(chunk);
  expect(again).toBe(text);
  return kind.name;
}

async function errorOf(input: string | Uint8Array, size?: number): Promise<StackError> {
  const thrown = await recognise("x.bin", chunksOf(input, size)).then(
    () => null,
    (error: unknown) => error,
  );
  expect(thrown).toBeInstanceOf(StackError);
  return thrown as StackError;
}

const MAP =
  "IOMMU: iova=0x0000000000001000 - 0x0000000000002000 paddr=0x0000000000003000 size=4096";

describe("the kind of a recording", () => {
  it("is told by its content", async () => {
    expect(await kindOf("# tracer: nop\n#\n")).toBe("ftrace");
    expect(await kindOf(`  fio-614  [000] ..... 90.080026: map: ${MAP}\n`)).toBe("ftrace");
    expect(await kindOf("CPU:0 [LOST 180 EVENTS]\n")).toBe("ftrace");
    expect(await kindOf("cpus=2\n")).toBe("trace-cmd");
    expect(await kindOf(`  fio-614 [000] 90.08: map:                  ${MAP}\n`)).toBe("trace-cmd");
    expect(await kindOf(`  fio 614 [000] 90.080026: iommu:map: ${MAP}\n`)).toBe("perf-script");
    expect(await kindOf("virtio_iommu_attach domain=1 endpoint=0\n")).toBe("qemu-virtio-iommu-log");
    expect(await kindOf("12@17.5:virtio_iommu_attach domain=1 endpoint=0\n")).toBe(
      "qemu-virtio-iommu-log",
    );
    expect(await kindOf('{"device_features": "0x1", "acked": "0x1", "config": ""}\n')).toBe(
      "virtio-iommu-requests",
    );
    expect(await kindOf('{"req": "00", "used_len": 4}\r\n')).toBe("virtio-iommu-requests");
    expect(await kindOf('{"op":"open","type":3,"group_flags":1}\n')).toBe("vfio-type1");
    expect(await kindOf('{"op":"unmap","iova":"0x0","errno":0}\n')).toBe("vfio-type1");
    expect(await kindOf('{"bar":2,"size":"0x1000","flags":7}\n')).toBe("vfio-map-time");
    expect(await kindOf('{"kind":"anon","size":"0x1000","map_s":0.1}\n')).toBe("vfio-map-time");
  });

  it("is found behind lines that tell nothing, torn ones and NULs", async () => {
    expect(await kindOf(`0001000 size=4096\n\n\n  a-1 [000] ..... 1.0: map: ${MAP}\n`)).toBe(
      "ftrace",
    );
    expect(
      await kindOf(
        "qemu-system-x86_64: warning: host doesn't support it\n\0\0\0\nvhost_iotlb_miss 1\n" +
          "virtio_iommu_system_reset system reset!\n",
      ),
    ).toBe("qemu-virtio-iommu-log");
  });

  it("is told by a last line without end", async () => {
    expect(await kindOf("virtio_iommu_attach domain=1 endp")).toBe("qemu-virtio-iommu-log");
  });

  it("has a name and a title of its own each", () => {
    expect(new Set(recordingKinds.map(({ name }) => name)).size).toBe(recordingKinds.length);
    expect(new Set(recordingKinds.map(({ title }) => title)).size).toBe(recordingKinds.length);
  });
});

describe("what is no recording", () => {
  it("is refused with the position of the first odd byte when it is binary", async () => {
    const error = await errorOf(Uint8Array.of(0x41, 0x0a, 0x7f, 0x45, 0x4c, 0x46, 0x02, 0x01));
    expect(error).toMatchObject({ code: "recording/unknown-kind", kind: "input" });
    expect(error.at).toEqual({ file: "x.bin", offset: 6 });
    expect(error.message).toContain("not text");
  });

  it("is refused with the kinds that are known when it is other text", async () => {
    const error = await errorOf("To be, or not to be\nthat is the question\n");
    expect(error.at).toEqual({ file: "x.bin", line: 1 });
    expect(error.message).toContain("first 2 lines");
    expect(error.hint).toContain("trace-cmd report");
  });

  it("is refused when it is empty", async () => {
    expect(await errorOf("")).toMatchObject({ code: "recording/empty", kind: "input" });
  });

  it("is refused after a bounded look at one endless line", async () => {
    const chunk = new Uint8Array(1024 * 1024).fill(0x61);
    let given = 0;
    async function* endless() {
      for (;;) {
        given += 1;
        yield chunk;
      }
    }
    const thrown = await recognise("long", endless()).catch((error: unknown) => error);
    expect(thrown).toMatchObject({ code: "recording/unknown-kind" });
    expect(given).toBeLessThan(10);
  });
});
