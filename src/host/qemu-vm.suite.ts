/** Virtual machines that several tests are about. */
import { readCommand } from "./qemu-command.ts";
import { buildVm } from "./qemu-vm.ts";
import { splitWords } from "./qemu-words.ts";

/** The machine of a command line. */
export function vmOf(text: string) {
  return buildVm(readCommand(splitWords(text, "--qemu"), "--qemu"));
}

/** The shape that firmware-topology.md shows for two nodes. */
export const twoNodes = `qemu-system-x86_64 -nodefaults -machine q35 -m 8G -smp 4,sockets=2,cores=2
  -object memory-backend-ram,id=mem0,size=4G,host-nodes=3,policy=bind
  -object memory-backend-ram,id=mem1,size=4G,host-nodes=4,policy=bind
  -numa node,nodeid=0,memdev=mem0 -numa node,nodeid=1,memdev=mem1
  -numa cpu,node-id=0,socket-id=0 -numa cpu,node-id=1,socket-id=1
  -numa dist,src=0,dst=1,val=21
  -device pxb-pcie,id=pxb1,bus=pcie.0,bus_nr=0x20,numa_node=1
  -device pcie-root-port,id=rp1,bus=pxb1,chassis=1,slot=1
  -object iommufd,id=iommufd0
  -device vfio-pci,host=0000:03:01.0,iommufd=iommufd0,bus=rp1
  -device virtio-iommu-pci,bus=pcie.0,addr=04.0`;
