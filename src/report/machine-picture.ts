/** Draws a simulated machine: nodes side by side, in them the IOMMUs with what is behind each. */
import type { MachinePicture, PictureNode, PictureUnit } from "../sim/study/picture.ts";
import { Drawing, fitText, type TextStyle } from "./svg.ts";

const WIDTH = 900;
const GAP = 16;
const PAD = 12;
const LINE = 18;
const DEVICE = 24;
/** Devices and nodes that are drawn; more are counted. */
const DEVICES_MAX = 12;
const NODES_MAX = 8;
const TITLE: TextStyle = { size: 14, bold: true, fill: "#1b1f24" };
const TEXT: TextStyle = { size: 12, fill: "#57606a" };
const NAME: TextStyle = { size: 12, bold: true, fill: "#1b1f24" };

/** Draws one. */
export function machinePicture({ nodes, link }: MachinePicture): string {
  const drawing = new Drawing();
  const drawn = nodes.slice(0, NODES_MAX);
  const columns = Math.min(drawn.length, 4);
  const width = (WIDTH - GAP * (columns - 1)) / columns;
  const rows = Math.ceil(drawn.length / columns);
  let y = 0;
  for (let row = 0; row < rows; row += 1) {
    const these = drawn.slice(row * columns, (row + 1) * columns);
    const height = Math.max(...these.map(nodeHeight));
    for (const [index, node] of these.entries()) {
      drawNode(drawing, node, { x: index * (width + GAP), y, width, height });
    }
    y += height + GAP;
  }
  const rest = nodes.length - drawn.length;
  const below = [
    ...(link === null ? [] : [`between nodes: ${link}`]),
    ...(rest === 0 ? [] : [`and ${rest} more nodes`]),
  ];
  for (const line of below) {
    drawing.text(0, y + 12, line, TEXT);
    y += LINE;
  }
  return drawing.document(WIDTH, y, "the machine");
}

interface Box {
  readonly x: number;
  readonly y: number;
  readonly width: number;
  readonly height: number;
}

function nodeHeight({ lines, units }: PictureNode): number {
  const inside = units.reduce((sum, unit) => sum + unitHeight(unit) + PAD, 0);
  return 2 * PAD + LINE * (1 + lines.length) + inside;
}

function unitHeight({ devices }: PictureUnit): number {
  return 2 * LINE + PAD + DEVICE * Math.min(devices.length, DEVICES_MAX + 1);
}

function drawNode(drawing: Drawing, node: PictureNode, { x, y, width, height }: Box): void {
  drawing.rect(x, y, width, height, { fill: "#f6f8fa", stroke: "#d0d7de", rx: 6 });
  const inner = width - 2 * PAD;
  let top = y + PAD + 12;
  drawing.text(x + PAD, top, fitText(node.name, inner, TITLE), TITLE);
  for (const line of node.lines) {
    top += LINE;
    drawing.text(x + PAD, top, fitText(line, inner, TEXT), TEXT);
  }
  top += PAD;
  for (const unit of node.units) {
    drawUnit(drawing, unit, { x: x + PAD, y: top, width: inner, height: unitHeight(unit) });
    top += unitHeight(unit) + PAD;
  }
}

function drawUnit(drawing: Drawing, unit: PictureUnit, { x, y, width, height }: Box): void {
  const { name, detail, devices } = unit;
  drawing.rect(x, y, width, height, { fill: "#ffffff", stroke: "#332288", rx: 4 });
  const inner = width - 2 * PAD;
  drawing.text(x + PAD, y + LINE - 2, fitText(name, inner, NAME), NAME);
  drawing.text(x + PAD, y + 2 * LINE - 4, fitText(detail, inner, TEXT), TEXT);
  const shown = devices.slice(0, DEVICES_MAX);
  if (devices.length > shown.length) shown.push(`and ${devices.length - shown.length} more`);
  for (const [index, device] of shown.entries()) {
    const top = y + 2 * LINE + index * DEVICE + 2;
    drawing.rect(x + PAD, top, inner, DEVICE - 5, { fill: "#ddcc7755", rx: 3 });
    drawing.text(x + PAD + 6, top + 14, fitText(device, inner - 12, TEXT), TEXT);
  }
}
