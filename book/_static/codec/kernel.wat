;; The codec's one loop nest: a row of a convolution, and all sums of the exact entropy model.
;;
;; book/_ext/codec_page.py writes this function twice, for 32-bit floats (g_a, h_a, g_s) and for 64-bit floats, in which
;; the integers of the entropy model are exact.  The words in capitals stand for:
;;   FLOAT   f32    f64       VECTOR  f32x4               f64x2
;;   BYTES   4      8         SPLAT   v128.load32_splat   v128.load64_splat, one number in all lanes
;;   WEIGHTS 32     16        W0 W1   the two vectors of weights at $w; weights are stored as f32 for both
;;
;; Tensors lie channels last with a border of zeros, so a window of a 3x3 kernel is three contiguous runs of numbers, and
;; a pixel's neighbour is a constant step away, also along a wavefront.  A group is two vectors of output channels;
;; a group's weights lie together, in the order of the window.  Four pixels go through a group at once.
(func (export "FLOAT")
  (param $in i32) (param $in_row i32) (param $in_step i32)  ;; the first window, and bytes to its next row and to the next window
  (param $rows i32) (param $run i32)                        ;; of a window; bytes in each row
  (param $weights i32) (param $groups i32)
  (param $init i32) (param $init_step i32)                  ;; what the sums start from: biases (step 0) or earlier sums
  (param $out i32) (param $out_step i32) (param $n i32)     ;; n pixels
  (param $slope FLOAT) (param $add i32)                     ;; LeakyReLU's, 1 for none; what is added in the end, laid out like out, 0 for none
  (local $i i32) (local $group i32) (local $row i32) (local $end i32) (local $w i32)
  (local $p1 i32) (local $p2 i32) (local $p3 i32)
  (local $a0 i32) (local $a1 i32) (local $a2 i32) (local $a3 i32)
  (local $x v128) (local $w0 v128) (local $w1 v128)
  (local $s00 v128) (local $s01 v128) (local $s10 v128) (local $s11 v128)
  (local $s20 v128) (local $s21 v128) (local $s30 v128) (local $s31 v128)
  (loop $next_group
    (local.set $i (i32.const 0))
    (loop $next_pixels
      ;; Past the end of the row the last pixel is computed again.
      (local.set $p1 (call $smaller (i32.add (local.get $i) (i32.const 1)) (i32.sub (local.get $n) (i32.const 1))))
      (local.set $p2 (call $smaller (i32.add (local.get $i) (i32.const 2)) (i32.sub (local.get $n) (i32.const 1))))
      (local.set $p3 (call $smaller (i32.add (local.get $i) (i32.const 3)) (i32.sub (local.get $n) (i32.const 1))))
      (local.set $a0 (i32.add (local.get $init) (i32.mul (local.get $i) (local.get $init_step))))
      (local.set $a1 (i32.add (local.get $init) (i32.mul (local.get $p1) (local.get $init_step))))
      (local.set $a2 (i32.add (local.get $init) (i32.mul (local.get $p2) (local.get $init_step))))
      (local.set $a3 (i32.add (local.get $init) (i32.mul (local.get $p3) (local.get $init_step))))
      (local.set $s00 (v128.load (local.get $a0))) (local.set $s01 (v128.load offset=16 (local.get $a0)))
      (local.set $s10 (v128.load (local.get $a1))) (local.set $s11 (v128.load offset=16 (local.get $a1)))
      (local.set $s20 (v128.load (local.get $a2))) (local.set $s21 (v128.load offset=16 (local.get $a2)))
      (local.set $s30 (v128.load (local.get $a3))) (local.set $s31 (v128.load offset=16 (local.get $a3)))
      (local.set $w (local.get $weights))
      (local.set $row (i32.const 0))
      (loop $next_row
        (local.set $a0 (i32.add (local.get $in) (i32.mul (local.get $row) (local.get $in_row))))
        (local.set $a1 (i32.add (local.get $a0) (i32.mul (local.get $p1) (local.get $in_step))))
        (local.set $a2 (i32.add (local.get $a0) (i32.mul (local.get $p2) (local.get $in_step))))
        (local.set $a3 (i32.add (local.get $a0) (i32.mul (local.get $p3) (local.get $in_step))))
        (local.set $a0 (i32.add (local.get $a0) (i32.mul (local.get $i) (local.get $in_step))))
        (local.set $end (i32.add (local.get $a0) (local.get $run)))
        (loop $next_number
          (local.set $w0 W0)
          (local.set $w1 W1)
          (local.set $x (SPLAT (local.get $a0)))
          (local.set $s00 (VECTOR.add (local.get $s00) (VECTOR.mul (local.get $x) (local.get $w0))))
          (local.set $s01 (VECTOR.add (local.get $s01) (VECTOR.mul (local.get $x) (local.get $w1))))
          (local.set $x (SPLAT (local.get $a1)))
          (local.set $s10 (VECTOR.add (local.get $s10) (VECTOR.mul (local.get $x) (local.get $w0))))
          (local.set $s11 (VECTOR.add (local.get $s11) (VECTOR.mul (local.get $x) (local.get $w1))))
          (local.set $x (SPLAT (local.get $a2)))
          (local.set $s20 (VECTOR.add (local.get $s20) (VECTOR.mul (local.get $x) (local.get $w0))))
          (local.set $s21 (VECTOR.add (local.get $s21) (VECTOR.mul (local.get $x) (local.get $w1))))
          (local.set $x (SPLAT (local.get $a3)))
          (local.set $s30 (VECTOR.add (local.get $s30) (VECTOR.mul (local.get $x) (local.get $w0))))
          (local.set $s31 (VECTOR.add (local.get $s31) (VECTOR.mul (local.get $x) (local.get $w1))))
          (local.set $w (i32.add (local.get $w) (i32.const WEIGHTS)))
          (local.set $a1 (i32.add (local.get $a1) (i32.const BYTES)))
          (local.set $a2 (i32.add (local.get $a2) (i32.const BYTES)))
          (local.set $a3 (i32.add (local.get $a3) (i32.const BYTES)))
          (br_if $next_number (i32.lt_u (local.tee $a0 (i32.add (local.get $a0) (i32.const BYTES))) (local.get $end))))
        (br_if $next_row (i32.lt_u (local.tee $row (i32.add (local.get $row) (i32.const 1))) (local.get $rows))))
      (call $end_FLOAT (local.get $s00) (local.get $s01) (i32.mul (local.get $i) (local.get $out_step)) (local.get $out) (local.get $add) (local.get $slope))
      (call $end_FLOAT (local.get $s10) (local.get $s11) (i32.mul (local.get $p1) (local.get $out_step)) (local.get $out) (local.get $add) (local.get $slope))
      (call $end_FLOAT (local.get $s20) (local.get $s21) (i32.mul (local.get $p2) (local.get $out_step)) (local.get $out) (local.get $add) (local.get $slope))
      (call $end_FLOAT (local.get $s30) (local.get $s31) (i32.mul (local.get $p3) (local.get $out_step)) (local.get $out) (local.get $add) (local.get $slope))
      (br_if $next_pixels (i32.lt_u (local.tee $i (i32.add (local.get $i) (i32.const 4))) (local.get $n))))
    (local.set $weights (local.get $w))
    (local.set $init (i32.add (local.get $init) (i32.const 32)))
    (local.set $out (i32.add (local.get $out) (i32.const 32)))
    (if (local.get $add) (then (local.set $add (i32.add (local.get $add) (i32.const 32)))))
    (br_if $next_group (i32.lt_u (local.tee $group (i32.add (local.get $group) (i32.const 1))) (local.get $groups)))))
;; A pixel's two vectors: LeakyReLU, which is the larger of v and slope * v, then the addition, then into the memory.
(func $end_FLOAT (param $v0 v128) (param $v1 v128) (param $at i32) (param $out i32) (param $add i32) (param $slope FLOAT)
  (local.set $v0 (VECTOR.max (local.get $v0) (VECTOR.mul (local.get $v0) (VECTOR.splat (local.get $slope)))))
  (local.set $v1 (VECTOR.max (local.get $v1) (VECTOR.mul (local.get $v1) (VECTOR.splat (local.get $slope)))))
  (if (local.get $add) (then
    (local.set $add (i32.add (local.get $add) (local.get $at)))
    (local.set $v0 (VECTOR.add (local.get $v0) (v128.load (local.get $add))))
    (local.set $v1 (VECTOR.add (local.get $v1) (v128.load offset=16 (local.get $add))))))
  (local.set $out (i32.add (local.get $out) (local.get $at)))
  (v128.store (local.get $out) (local.get $v0))
  (v128.store offset=16 (local.get $out) (local.get $v1)))
