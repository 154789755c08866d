// Draws one moment's splats in a given order.

import { ROW } from './unpack.mjs'
import { FRAGMENT, VERTEX } from './shaders.mjs'
import { transposed } from './math.mjs'

const UNIFORMS = ['splats', 'chunks', 'view', 'eye', 'origin', 'unit', 'focal', 'principal', 'size']

export class Painter {
  constructor(canvas) {
    const gl = canvas.getContext('webgl2', { alpha: false, antialias: false, depth: false, powerPreference: 'high-performance' })
    if (!gl) throw new Error('this browser has no WebGL 2')
    this.gl = gl
    this.canvas = canvas
    this.fine = Boolean(gl.getExtension('EXT_color_buffer_float')) // half floats: faint splats do not round away
    this.program = this.link(VERTEX, FRAGMENT)
    this.at = Object.fromEntries(UNIFORMS.map((name) => [name, gl.getUniformLocation(this.program, name)]))
    this.order = gl.createBuffer()
    this.target = { frame: gl.createFramebuffer(), texture: null, size: [0, 0] }
    this.largest = gl.getParameter(gl.MAX_TEXTURE_SIZE) * ROW // splats of a moment
    gl.bindVertexArray(gl.createVertexArray())
    gl.bindBuffer(gl.ARRAY_BUFFER, this.order)
    gl.enableVertexAttribArray(0)
    gl.vertexAttribIPointer(0, 1, gl.UNSIGNED_INT, 0, 0)
    gl.vertexAttribDivisor(0, 1)
  }

  link(vertex, fragment) {
    const { gl } = this
    const program = gl.createProgram()
    for (const [kind, source] of [[gl.VERTEX_SHADER, vertex], [gl.FRAGMENT_SHADER, fragment]]) {
      const shader = gl.createShader(kind)
      gl.shaderSource(shader, source)
      gl.compileShader(shader)
      gl.attachShader(program, shader)
    }
    gl.linkProgram(program)
    if (!gl.getProgramParameter(program, gl.LINK_STATUS) && !gl.isContextLost())
      throw new Error(gl.getAttachedShaders(program).map((one) => gl.getShaderInfoLog(one)).join('\n'))
    return program
  }

  // Textures of an unpacked moment
  hold({ words, chunks, origin, unit, count }) {
    const { gl } = this
    if (count > this.largest) throw new Error(`${count} splats; this graphics card draws ${this.largest}`)
    const texture = (kind, format, type, values) => {
      const made = gl.createTexture()
      gl.bindTexture(gl.TEXTURE_2D, made)
      gl.texStorage2D(gl.TEXTURE_2D, 1, kind, ROW, values.length / 4 / ROW)
      gl.texSubImage2D(gl.TEXTURE_2D, 0, 0, 0, ROW, values.length / 4 / ROW, format, type, values)
      for (const side of [gl.TEXTURE_MIN_FILTER, gl.TEXTURE_MAG_FILTER]) gl.texParameteri(gl.TEXTURE_2D, side, gl.NEAREST)
      return made
    }
    return {
      splats: texture(gl.RGBA32UI, gl.RGBA_INTEGER, gl.UNSIGNED_INT, words),
      chunks: texture(gl.RGBA32F, gl.RGBA, gl.FLOAT, chunks),
      origin,
      unit,
      count
    }
  }

  release({ splats, chunks }) {
    for (const texture of [splats, chunks]) this.gl.deleteTexture(texture)
  }

  setOrder(order) {
    this.gl.bindBuffer(this.gl.ARRAY_BUFFER, this.order)
    this.gl.bufferData(this.gl.ARRAY_BUFFER, order, this.gl.DYNAMIC_DRAW)
    this.count = order.length
  }

  // Bind what is drawn into, in half floats where there are such
  begin(width, height) {
    const { gl, target } = this
    if (target.size[0] !== width || target.size[1] !== height) {
      gl.deleteTexture(target.texture)
      target.texture = gl.createTexture()
      gl.bindTexture(gl.TEXTURE_2D, target.texture)
      gl.texStorage2D(gl.TEXTURE_2D, 1, this.fine ? gl.RGBA16F : gl.RGBA8, width, height)
      gl.bindFramebuffer(gl.FRAMEBUFFER, target.frame)
      gl.framebufferTexture2D(gl.FRAMEBUFFER, gl.COLOR_ATTACHMENT0, gl.TEXTURE_2D, target.texture, 0)
      target.size = [width, height]
    }
    gl.bindFramebuffer(gl.FRAMEBUFFER, target.frame)
    gl.viewport(0, 0, width, height)
  }

  // `held` seen by a camera through a lens of the size that is drawn; the canvas may be larger
  draw(held, camera, { focal, principal, size }, background) {
    const { gl, at } = this
    this.begin(...size)
    gl.clearColor(...background, 1)
    gl.clear(gl.COLOR_BUFFER_BIT)
    if (held && this.count) {
      gl.useProgram(this.program)
      gl.enable(gl.BLEND)
      gl.blendFunc(gl.ONE, gl.ONE_MINUS_SRC_ALPHA)
      ;[held.splats, held.chunks].forEach((texture, unit) => {
        gl.activeTexture(gl.TEXTURE0 + unit)
        gl.bindTexture(gl.TEXTURE_2D, texture)
      })
      gl.activeTexture(gl.TEXTURE0)
      gl.uniform1i(at.splats, 0)
      gl.uniform1i(at.chunks, 1)
      gl.uniformMatrix3fv(at.view, true, transposed(camera.r))
      gl.uniform3fv(at.eye, camera.p)
      gl.uniform3fv(at.origin, held.origin)
      gl.uniform1f(at.unit, held.unit)
      gl.uniform2fv(at.focal, focal)
      gl.uniform2fv(at.principal, principal)
      gl.uniform2fv(at.size, size)
      gl.drawArraysInstanced(gl.TRIANGLE_STRIP, 0, 4, this.count)
    }
    const { width, height } = this.canvas
    const same = size[0] === width && size[1] === height
    gl.bindFramebuffer(gl.DRAW_FRAMEBUFFER, null)
    gl.blitFramebuffer(0, 0, ...size, 0, 0, width, height, gl.COLOR_BUFFER_BIT, same ? gl.NEAREST : gl.LINEAR)
  }
}
