"""C code of exp, log and their relatives: plain C that compilers turn into vector instructions.

Neither a particular C library nor a particular compiler is needed. Each function has no branches and no
tables, only arithmetic, choices and shifts of bits, so that a loop around it is vectorised. Results are
within 2 units in the last place; infinities, NaN, -0.0 and numbers below the smallest normal one come out as
in NumPy. Options that let a compiler assume that there are none of these must not be given.

The method is the usual one (Muller, "Elementary Functions", 3rd edition, 2016): the argument is reduced to a
short interval, and there a polynomial does. Its coefficients are those whose largest relative error is
smallest, from the algorithm of Remez in numbers of 50 digits.
"""

from __future__ import annotations

from collections.abc import Sequence
from string import Template

#: exp(r) = 1 + r + r^2 P(r), where |r| is at most log(2) / 2.
_EXP_FLOAT = (
    *(0.5000000044663362, 0.1666666636707085, 0.041666358600039595),
    *(0.008333389798157556, 0.0013940823227591617, 0.00019845893501348663),
)
_EXP_DOUBLE = (
    *(0.5000000000000006, 0.16666666666666588, 0.04166666666657538, 0.00833333333339041),
    *(0.0013888888932051828, 0.0001984126971760652, 2.4801504650346358e-05, 2.7557408217622927e-06),
    *(2.7626298786753156e-07, 2.505378031018935e-08),
)
#: log(1 + f) = f - f^2 / 2 + f^3 P(f), where 1 + f is between sqrt(1 / 2) and sqrt(2).
_LOG_FLOAT = (
    *(0.3333331241514559, -0.25000009637149984, 0.20002133584855755, -0.1666800688231437),
    *(0.14219224440875872, -0.12405135448767021, 0.11890323238850817, -0.11679654194419213),
    0.06746600302415819,
)
#: log(1 + f) = 2 s + s^3 P(s^2), where s = f / (2 + f); a shorter polynomial will do for a power as float.
_LOG_DOUBLE = (
    *(0.6666666666666735, 0.3999999999940749, 0.2857142874414181, 0.22222198378446364),
    *(0.18183575166600668, 0.15313755741606788, 0.14799066196744046),
)
_LOG_SHORT = (0.6666666563711764, 0.4000033724959837, 0.285371680421308, 0.23584986340102249)
#: tanh(x) = x + x^3 P(x^2), where |x| is at most 0.625.
_TANH = (
    *(-0.3333333080274358, 0.13333206008662493, -0.05394676308610354),
    *(0.02170070331701413, -0.00817739841215958, 0.0021429619639801683),
)
#: erf(x) = x + x P(x^2), where |x| is at most 1.
_ERF = (
    *(0.12837916572671346, -0.37612625824215745, 0.11283585148351825, -0.026853811923966422),
    *(0.00518832766464742, -0.0008010193446308958, 7.853860784269767e-05),
)
#: erf(x) = 1 - exp(P(x)), where x is between 1 and 4.
_ERF_TAIL = (
    *(0.0001880361078201146, -1.1295784060322678, -0.6332199270520315, -0.1084185428236482),
    *(0.025208236095165756, -0.004204554608367584, 0.00044133498445163565, -2.1686737848934155e-05),
)


def _polynomial(coefficients: Sequence[float], x: str, kind: str) -> str:
    """Return the expression of a polynomial, lowest power first, in Horner's scheme."""
    first, *others = [f"({kind}) {coefficient.hex()}" for coefficient in coefficients]
    text = others.pop()
    while others:
        text = f"({text}) * {x} + {others.pop()}"
    return f"(({text}) * {x} + {first})"


_COMMON = """\
#if defined(__GNUC__)
#define MATHEMATICS static inline __attribute__((always_inline))
#else
#define MATHEMATICS static inline
#endif
"""

#: What float and double have in common. A product and a sum may become one instruction, or not.
_FUNCTIONS = """\
MATHEMATICS $bits bits_of_$kind($kind x) { return (union { $kind number; $bits bits; }) {x}.bits; }
MATHEMATICS $kind ${kind}_of($bits x) { return (union { $bits bits; $kind number; }) {x}.number; }

/* 2 to the power n, where that is a normal number; n is in two's complement. */
MATHEMATICS $kind power_of_2_$kind($bits n) { return ${kind}_of((n + $bias) << $digits); }

/* The whole number n next to x / log(2), returned as bits, and *r = x - n * log(2), where *lost is missing.
   In a sum with this large number no digit is left behind the point. */
MATHEMATICS $bits whole_powers_$kind($kind x, $kind *r, $kind *lost) {
    $kind shifted = x * ($kind) $inverse_of_log_2 + ($kind) $shift, n = shifted - ($kind) $shift;
    $kind rest = x - n * ($kind) $log_2_high;
    *r = rest - n * ($kind) $log_2_low;
    *lost = (rest - *r) - n * ($kind) $log_2_low;
    return bits_of_$kind(shifted) - bits_of_$kind($shift);
}

/* exp(r + lost) - 1, where |r| is at most log(2) / 2. */
MATHEMATICS $kind expm1_near_0_$kind($kind r, $kind lost) { return r + (r * r * $exp + lost); }

/* Half of the power is multiplied first, as the whole of it may be below or above all normal numbers. */
MATHEMATICS $kind exp_$kind($kind x) {
    $kind r, lost;
    x = x > ($kind) $largest_exp ? ($kind) $largest_exp : x;
    x = x < ($kind) $smallest_exp ? ($kind) $smallest_exp : x;
    $bits n = whole_powers_$kind(x, &r, &lost), half = ((n + 2 * $bias + 2) >> 1) - ($bias + 1);
    return (1 + expm1_near_0_$kind(r, 0)) * power_of_2_$kind(half) * power_of_2_$kind(n - half);
}

/* Half of 2^n is in range for every n. What is lost below the smallest normal number does not change x. */
MATHEMATICS $kind expm1_$kind($kind x) {
    $kind r, lost, y = x > ($kind) $largest_exp ? ($kind) $largest_exp : x < -50 ? -50 : x;
    $bits n = whole_powers_$kind(y, &r, &lost);
    $kind half = power_of_2_$kind(n - 1);
    $kind result = 2 * (half * expm1_near_0_$kind(r, lost) + (half - ($kind) 0.5));
    return x < ($kind) 1e-30 && x > ($kind) -1e-30 ? x : result;
}

/* x = 2^exponent * (1 + f) for normal x, with 1 + f between sqrt(1 / 2) and sqrt(2). */
MATHEMATICS $kind split_$kind($kind x, $kind *f) {
    $bits bits = bits_of_$kind(x), offset = 2 * ($bits) $bias << $digits;
    $bits exponent = (bits - bits_of_$kind(($kind) $root_of_half) + offset) >> $digits;
    *f = ${kind}_of(bits + offset - (exponent << $digits)) - 1;
    /* A number below 2^digits, in the digits of 2^digits, is converted to $kind. */
    return ${kind}_of(exponent | bits_of_$kind($whole)) - ($kind) ($whole + 2 * $bias);
}

/* exponent * log(2) + log(1 + f) + small */
MATHEMATICS $kind sum_of_logs_$kind($kind exponent, $kind f, $kind small) {
    $kind half_square = ($kind) 0.5 * f * f;
    small += exponent * ($kind) $log_2_low;
    $sum_of_logs
}

MATHEMATICS $kind log_$kind($kind x) {
    $kind f, is_small = x < ($kind) $smallest;
    $kind exponent = split_$kind(is_small ? x * ($kind) $whole : x, &f);
    $kind result = sum_of_logs_$kind(is_small ? exponent - $digits : exponent, f, 0);
    result = x < ($kind) INFINITY ? result : x;
    result = x == 0 ? -($kind) INFINITY : result;
    return x < 0 ? ($kind) NAN : result;
}

/* The logarithm of the rounded sum, and what was lost in rounding it. */
MATHEMATICS $kind log1p_$kind($kind x) {
    $kind f, sum = 1 + x, lost = x > 1 ? 1 - (sum - x) : x - (sum - 1);
    $kind exponent = split_$kind(sum, &f), result;
    result = sum_of_logs_$kind(exponent, exponent == 0 ? x : f, exponent == 0 ? 0 : lost / sum);
    result = x < ($kind) INFINITY ? result : x;
    result = x < ($kind) 1e-30 && x > ($kind) -1e-30 ? x : result;
    result = x == -1 ? -($kind) INFINITY : result;
    return x < -1 ? ($kind) NAN : result;
}
"""

_FLOAT_ALONE = """\
MATHEMATICS float with_sign(float size, float x) {
    return float_of(bits_of_float(size) | (bits_of_float(x) & 0x80000000u));
}

MATHEMATICS float tanh_float(float x) {
    float size = x < 0 ? -x : x, square = x * x, r, lost;
    uint32_t n = whole_powers_float(2 * (size > 10 ? 10 : size), &r, &lost);
    float large = 1 - 2 / ((1 + expm1_near_0_float(r, 0)) * power_of_2_float(n) + 1);
    return with_sign(size < 0.625f ? size + size * square * $tanh : large, x);
}

MATHEMATICS float erf_float(float x) {
    float size = x < 0 ? -x : x, square = x * x, y = size > 4 ? 4 : size, r, lost;
    uint32_t n = whole_powers_float($erf_tail, &r, &lost);
    float large = 1 - (1 + expm1_near_0_float(r, 0)) * power_of_2_float(n);
    return with_sign(size < 1 ? size + size * $erf : large, x);
}

/* In double, so that the error of the logarithm, times the exponent, is still small. */
MATHEMATICS float pow_float(float base, float exponent) {
    double a = base < 0 ? -base : base, b = exponent, f, r, lost;
    double whole = split_double(a, &f), s = f / (2 + f), square = s * s;
    double log = whole * 0x1.62e42fefa39efp-1 + (2 * s + s * square * $log_short);
    log = a == 0 ? -INFINITY : a < INFINITY ? log : a;
    double power = log == 0 ? 0 : b * log;
    power = power > 200 ? 200 : power < -200 ? -200 : power;
    uint64_t n = whole_powers_double(power, &r, &lost);
    float result = (float) ((1 + (r + r * r * $exp_short)) * power_of_2_double(n));
    int is_whole = rint(b) == b, is_odd = is_whole & (rint(b / 2) != b / 2);
    uint32_t sign = bits_of_float(base) & 0x80000000u;
    int is_root = (sign != 0) & !is_whole & (a > 0) & (a < INFINITY);
    result = is_root ? NAN : result;
    result = float_of(bits_of_float(result) | (is_odd ? sign : 0));
    return b == 0 ? 1 : result;
}
"""

_DOUBLE_ALONE = """\
/* With p = exp(2 x) - 1 it is 1 - 2 / (p + 2), or p / (p + 2), for small x without rounding the sum. */
MATHEMATICS double tanh_double(double x) {
    double size = x < 0 ? -x : x, p = expm1_double(2 * size), q = p / (p + 2);
    double small = 0.5 * p - 0.5 * p * q, large = 1 - 2 / (p + 2);
    double result = size < 0.5 ? small : large;
    return x == 0 ? x : x < 0 ? -result : result;
}
"""

#: The functions of every name that is not C's own for both types.
_NAMES = """\
#undef exp
#undef expm1
#undef log
#undef log1p
#undef tanh
#undef erf
#undef pow
#define exp(x) _Generic((x), float: exp_float, default: exp_double)(x)
#define expm1(x) _Generic((x), float: expm1_float, default: expm1_double)(x)
#define log(x) _Generic((x), float: log_float, default: log_double)(x)
#define log1p(x) _Generic((x), float: log1p_float, default: log1p_double)(x)
#define tanh(x) _Generic((x), float: tanh_float, default: tanh_double)(x)
#define erf(x) _Generic((x), float: erf_float, default: (erf))(x)
#define pow(a, b) _Generic((a) + (b), float: pow_float, default: (pow))(a, b)
"""

_OF_FLOAT = {
    **{"kind": "float", "bits": "uint32_t", "bias": "127u", "digits": "23", "smallest": "0x1p-126f"},
    **{"inverse_of_log_2": "0x1.715476p+0", "log_2_high": "0x1.62e4p-1", "log_2_low": "0x1.7f7d1cf8p-20"},
    **{"shift": "0x1.8p23f", "whole": "0x1p23f", "largest_exp": "89", "smallest_exp": "-104"},
    **{"exp": _polynomial(_EXP_FLOAT, "r", "float"), "root_of_half": "0x1.6a09e6p-1"},
    "sum_of_logs": (
        f"small += f * f * f * {_polynomial(_LOG_FLOAT, 'f', 'float')};\n"
        "    return exponent * (float) 0x1.62e4p-1 + (f + (small - half_square));"
    ),
}
_OF_DOUBLE = {
    **{"kind": "double", "bits": "uint64_t", "bias": "1023u", "digits": "52", "smallest": "0x1p-1022"},
    **{"inverse_of_log_2": "0x1.71547652b82fep+0", "log_2_high": "0x1.62e42feep-1"},
    **{"log_2_low": "0x1.a39ef35793c76p-33", "shift": "0x1.8p52", "whole": "0x1p52"},
    **{"largest_exp": "710", "smallest_exp": "-746"},
    **{"exp": _polynomial(_EXP_DOUBLE, "r", "double"), "root_of_half": "0x1.6a09e667f3bcdp-1"},
    "sum_of_logs": (
        "double s = f / (2 + f), square = s * s;\n"
        f"    small += s * (half_square + square * {_polynomial(_LOG_DOUBLE, 'square', 'double')});\n"
        "    return exponent * 0x1.62e42feep-1 + (f + (small - half_square));"
    ),
}
_POLYNOMIALS = {
    "tanh": _polynomial(_TANH, "square", "float"),
    "erf": _polynomial(_ERF, "square", "float"),
    "erf_tail": _polynomial(_ERF_TAIL, "y", "float"),
    "log_short": _polynomial(_LOG_SHORT, "square", "double"),
    "exp_short": _polynomial(_EXP_FLOAT, "r", "double"),
}

#: The text that stands before generated code, behind <tgmath.h> and <stdint.h>.
MATHEMATICS = "\n".join(
    [
        _COMMON,
        Template(_FUNCTIONS).substitute(_OF_FLOAT),
        Template(_FUNCTIONS).substitute(_OF_DOUBLE),
        Template(_FLOAT_ALONE).substitute(_POLYNOMIALS),
        _DOUBLE_ALONE,
        _NAMES,
    ]
)
