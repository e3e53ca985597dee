"""A z-buffer for small triangles with a colour at each vertex, in numba."""

from __future__ import annotations

import numpy as np

from xactor_jax.errors import InputError

try:
    import numba
except ImportError:
    raise InputError("numba is missing; pip install 'xactor_jax[actors]'") from None


@numba.njit(cache=True, fastmath=True)
def deform(base, starts, indices, offsets, weights, out):
    """out = base + sum of weights[e] times the sparse offsets of shape e.

    base, out: float32 (v,3); shape e owns indices[starts[e]:starts[e+1]] and offsets there (.,3).
    """
    out[:] = base
    for e in range(weights.shape[0]):
        w = weights[e]
        if w == 0.0:
            continue
        for i in range(starts[e], starts[e + 1]):
            v = indices[i]
            out[v, 0] += w * offsets[i, 0]
            out[v, 1] += w * offsets[i, 1]
            out[v, 2] += w * offsets[i, 2]


@numba.njit(cache=True, fastmath=True)
def place(vertices, follow, rotation, pivot, shift, camera, distance, window, world, screen):
    """Turn the head on its neck, look at it through the camera and cut the window.

    vertices, world (out): float32 (v,3) cm; follow (v,): how far a vertex turns with the head;
    rotation, camera: (3,3); window: centre right, centre down, pixels a cm, half the picture in
    pixels; screen (out): (v,3) x right and y down in pixels, depth in cm away from the camera.
    """
    for i in range(vertices.shape[0]):
        x = vertices[i, 0] - pivot[0]
        y = vertices[i, 1] - pivot[1]
        z = vertices[i, 2] - pivot[2]
        f = follow[i]
        rx = rotation[0, 0] * x + rotation[0, 1] * y + rotation[0, 2] * z
        ry = rotation[1, 0] * x + rotation[1, 1] * y + rotation[1, 2] * z
        rz = rotation[2, 0] * x + rotation[2, 1] * y + rotation[2, 2] * z
        x = x + f * (rx - x) + pivot[0] + shift[0]
        y = y + f * (ry - y) + pivot[1] + shift[1]
        z = z + f * (rz - z) + pivot[2]
        world[i, 0] = camera[0, 0] * x + camera[0, 1] * y + camera[0, 2] * z
        world[i, 1] = camera[1, 0] * x + camera[1, 1] * y + camera[1, 2] * z
        world[i, 2] = camera[2, 0] * x + camera[2, 1] * y + camera[2, 2] * z
        depth = distance - world[i, 2]
        near = distance / depth
        screen[i, 0] = (world[i, 0] * near - window[0]) * window[2] + window[3]
        screen[i, 1] = (-world[i, 1] * near - window[1]) * window[2] + window[3]
        screen[i, 2] = depth


@numba.njit(cache=True, fastmath=True)
def vertex_normals(vertices, triangles, normals):
    """Area-weighted unit normals (v,3) of a mesh, written into `normals`."""
    normals[:] = 0.0
    for t in range(triangles.shape[0]):
        a = triangles[t, 0]
        b = triangles[t, 1]
        c = triangles[t, 2]
        ux = vertices[b, 0] - vertices[a, 0]
        uy = vertices[b, 1] - vertices[a, 1]
        uz = vertices[b, 2] - vertices[a, 2]
        vx = vertices[c, 0] - vertices[a, 0]
        vy = vertices[c, 1] - vertices[a, 1]
        vz = vertices[c, 2] - vertices[a, 2]
        nx = uy * vz - uz * vy
        ny = uz * vx - ux * vz
        nz = ux * vy - uy * vx
        for j in range(3):
            k = triangles[t, j]
            normals[k, 0] += nx
            normals[k, 1] += ny
            normals[k, 2] += nz
    for i in range(normals.shape[0]):
        x = normals[i, 0]
        y = normals[i, 1]
        z = normals[i, 2]
        scale = 1.0 / (np.sqrt(x * x + y * y + z * z) + 1e-12)
        normals[i, 0] = x * scale
        normals[i, 1] = y * scale
        normals[i, 2] = z * scale


@numba.njit(cache=True, fastmath=True)
def light_vertices(normals, colours, shine, light, key, fill, lit):
    """Wrapped diffuse key light, sky-to-floor fill, a highlight and a faint rim, at each vertex.

    normals, colours, lit (out): (v,3); shine (v,); light: unit vector to the key light;
    key, fill: colours (3,). The eye is far away on +z.
    """
    hx = light[0]
    hy = light[1]
    hz = light[2] + 1.0
    scale = 1.0 / np.sqrt(hx * hx + hy * hy + hz * hz)
    for i in range(normals.shape[0]):
        nx = normals[i, 0]
        ny = normals[i, 1]
        nz = normals[i, 2]
        diffuse = max((nx * light[0] + ny * light[1] + nz * light[2]) * 0.7 + 0.3, 0.0)
        h = max((nx * hx + ny * hy + nz * hz) * scale, 0.0)
        h4 = h * h * h * h
        h8 = h4 * h4
        highlight = h8 * h8 * h8 * h4 * shine[i]
        edge = 1.0 - max(nz, 0.0)
        rim = edge * edge * edge * 0.07
        sky = 0.75 + 0.35 * ny
        for k in range(3):
            shade = key[k] * diffuse + fill[k] * sky
            lit[i, k] = colours[i, k] * (shade + rim) + highlight * key[k]


@numba.njit(cache=True, fastmath=True)
def draw(screen, colours, triangles, push, image, depth):
    """Draw triangles that face the eye into image (h,w,3) where they are nearer than depth (h,w).

    screen: (v,3) x, y in pixels (pixel centres at .5) and depth; colours: (v,3); triangles (n,3)
    show their front when clockwise on the screen; push (n,): added to a triangle's depth. Colour
    and depth vary linearly over the screen, which holds for triangles of a few pixels.
    """
    height, width = depth.shape
    for t in range(triangles.shape[0]):
        a = triangles[t, 0]
        b = triangles[t, 1]
        c = triangles[t, 2]
        x0 = screen[a, 0]
        y0 = screen[a, 1]
        x1 = screen[b, 0]
        y1 = screen[b, 1]
        x2 = screen[c, 0]
        y2 = screen[c, 1]
        area = (x1 - x0) * (y2 - y0) - (x2 - x0) * (y1 - y0)
        if area <= 1e-9:
            continue
        left = max(int(np.ceil(min(x0, x1, x2) - 0.5)), 0)
        right = min(int(np.floor(max(x0, x1, x2) - 0.5)), width - 1)
        top = max(int(np.ceil(min(y0, y1, y2) - 0.5)), 0)
        bottom = min(int(np.floor(max(y0, y1, y2) - 0.5)), height - 1)
        if left > right or top > bottom:
            continue
        inverse = 1.0 / area
        step0 = (y1 - y2) * inverse
        step1 = (y2 - y0) * inverse
        z0 = screen[a, 2] + push[t]
        z1 = screen[b, 2] + push[t]
        z2 = screen[c, 2] + push[t]
        for y in range(top, bottom + 1):
            py = y + 0.5
            px = left + 0.5
            w0 = ((x1 - px) * (y2 - py) - (x2 - px) * (y1 - py)) * inverse
            w1 = ((x2 - px) * (y0 - py) - (x0 - px) * (y2 - py)) * inverse
            for x in range(left, right + 1):
                w2 = 1.0 - w0 - w1
                # A hair of slack closes the seams that rounding leaves between neighbours.
                if w0 >= -1e-5 and w1 >= -1e-5 and w2 >= -1e-5:
                    z = w0 * z0 + w1 * z1 + w2 * z2
                    if z < depth[y, x]:
                        depth[y, x] = z
                        for k in range(3):
                            image[y, x, k] = (
                                w0 * colours[a, k] + w1 * colours[b, k] + w2 * colours[c, k]
                            )
                w0 += step0
                w1 += step1


@numba.njit(cache=True, fastmath=True)
def resolve(image, samples, curve, picture):
    """Average samples x samples and apply a tone curve: float (h,w,3) to uint8 picture.

    curve: uint8 (n,), the value of a channel in [0,1] at n even steps.
    """
    height, width = picture.shape[:2]
    scale = (curve.shape[0] - 1) / (samples * samples)
    for y in range(height):
        for x in range(width):
            for k in range(3):
                total = 0.0
                for j in range(samples):
                    for i in range(samples):
                        total += min(max(image[y * samples + j, x * samples + i, k], 0.0), 1.0)
                picture[y, x, k] = curve[int(total * scale + 0.5)]
