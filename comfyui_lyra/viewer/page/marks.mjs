// What is drawn over the splats: camera paths, keyframes with their numbers, and the edge of the picture.

import { add, column, project } from './math.mjs'

const BLUE = 'rgba(90, 160, 255, 0.75)'
const AMBER = 'rgba(255, 184, 77, 0.95)'
const NEAR = 0.02

export class Marks {
  constructor(canvas) {
    this.canvas = canvas
    this.context = canvas.getContext('2d')
  }

  // A polyline of world points, cut where it passes behind the eye
  line(points, view, style, width) {
    const { context } = this
    context.strokeStyle = style
    context.lineWidth = width
    context.beginPath()
    let pen = false
    for (const point of points) {
      const [x, y, z] = project(point, view.camera, view.lens)
      if (z < NEAR) pen = false
      else if (pen) context.lineTo(x, y)
      else context.moveTo(x, y)
      if (z >= NEAR) pen = true
    }
    context.stroke()
  }

  // A camera as a small pyramid with its number
  pyramid(key, view, size, label, style) {
    const { start } = view
    const [w, h] = [start.width / start.K[0] / key.zoom, start.height / start.K[1] / key.zoom].map((v) => (v * size) / 2)
    const corner = (x, y) => {
      const side = add(add(key.p, column(key.r, 0), x), column(key.r, 1), y)
      return add(side, column(key.r, 2), size)
    }
    const corners = [corner(-w, -h), corner(w, -h), corner(w, h), corner(-w, h)]
    this.line([...corners, corners[0]], view, style, 1.5)
    for (const end of corners) this.line([key.p, end], view, style, 1)
    const [x, y, z] = project(key.p, view.camera, view.lens)
    if (z < NEAR || !label) return
    this.context.fillStyle = style
    this.context.fillText(label, x + 6, y - 6)
  }

  draw(view) {
    const { context, canvas } = this
    context.setTransform(1, 0, 0, 1, 0, 0)
    context.clearRect(0, 0, canvas.width, canvas.height)
    context.font = `600 ${Math.round(12 * view.ratio)}px system-ui, sans-serif`
    context.lineJoin = 'round'
    if (view.frame) {
      const [w, h] = view.lens.frame
      context.strokeStyle = 'rgba(128, 128, 128, 0.6)'
      context.lineWidth = view.ratio
      context.strokeRect((canvas.width - w) / 2 + 0.5, (canvas.height - h) / 2 + 0.5, w - 1, h - 1)
    }
    if (!view.visible) return
    for (const path of view.paths) this.line(path, view, BLUE, 1.5 * view.ratio)
    if (view.curve.length) this.line(view.curve, view, AMBER, 2 * view.ratio)
    view.keys.forEach((key, i) => this.pyramid(key, view, view.reach * 0.06, String(i + 1), AMBER))
  }
}
