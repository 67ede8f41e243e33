/** A VMM that uses raw ioctls: files, bytes, and a host with two devices. */
import { VfioTask } from "../file.ts";
import { buildHost, type Host } from "../host/host.ts";
import { twoNodePlan } from "../host/world.suite.ts";
import { UserProcess } from "../process/user-process.ts";
import { UserBuffer } from "../uapi/user-memory.ts";
import { IommufdFile, type IommufdFileOptions } from "./iommufd-file.ts";
import { FakeMemory } from "./iommufd-world.suite.ts";
import { VfioCdev } from "./vfio-cdev.ts";

/** Where the VMM's buffer for arrays and bitmaps lies. */
export const BUFFER = 0x10_0000n;

/** What the tests of raw structures begin with. */
export interface Vmm {
  readonly host: Host;
  readonly task: VfioTask;
  readonly memory: FakeMemory;
  readonly file: IommufdFile;
  readonly fd: number;
  /** What pointers lead to. */
  readonly buffer: UserBuffer;
  /** Files of the devices, by address. */
  cdev(address: string): VfioCdev;
}

export function makeVmm(options: IommufdFileOptions = {}, bufferBytes = 256): Vmm {
  const host = buildHost(twoNodePlan());
  const memory = new FakeMemory(4);
  const buffer = new UserBuffer(BUFFER, new Uint8Array(bufferBytes));
  const process = new UserProcess({ memory });
  const task = new VfioTask({ process, userMemory: buffer, filesMax: 16 });
  const file = new IommufdFile(options);
  const fd = task.open(file).value;
  const cdevs = new Map<string, VfioCdev>();
  return {
    host,
    task,
    memory,
    file,
    fd,
    buffer,
    cdev(address) {
      const { iommuDevice } = host.device(address);
      const known = cdevs.get(address);
      if (known !== undefined) return known;
      for (const group of host.vfio.groups) {
        const device = group.devices.find((each) => each.iommuDevice === iommuDevice);
        if (device === undefined) continue;
        const cdev = new VfioCdev(device, group);
        cdevs.set(address, cdev);
        return cdev;
      }
      throw new Error(`${address} is not a VFIO device`);
    },
  };
}
