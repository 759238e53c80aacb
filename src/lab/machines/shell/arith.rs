//! `$((…))`: 64-bit integers that wrap, variables by name, assignment.

use brush_parser::arithmetic;
use brush_parser::ast::{
    ArithmeticExpr as Expr, ArithmeticTarget, BinaryOperator as Op, UnaryAssignmentOperator as Step, UnaryOperator,
};

use super::{Shell, Stop};

/// Longer ones are refused: the parser recurses.
const MAX_TEXT: usize = 512;
/// A variable may name an expression that names a variable…
const MAX_DEPTH: u32 = 16;

impl Shell {
    /// The value of an expression whose parameters are expanded already.
    pub(super) async fn arithmetic(&mut self, text: &str) -> Result<i64, Stop> {
        match self.evaluate(text, 0) {
            Ok(value) => Ok(value),
            Err(why) => Err(self.fatal(format!("{}: {why}", text.trim()), 2).await),
        }
    }

    fn evaluate(&mut self, text: &str, depth: u32) -> Result<i64, String> {
        let text = text.trim();
        if text.is_empty() {
            return Ok(0);
        }
        if let Some(number) = number(text) {
            return number;
        }
        // The parser does not survive a number that does not fit.
        let digits = text.split(|c: char| !c.is_ascii_alphanumeric()).map(str::len).max().unwrap_or(0);
        if text.len() > MAX_TEXT || depth > MAX_DEPTH || digits > 15 {
            return Err("expression too long".to_owned());
        }
        if text.matches(['(', '!', '~', '?', '[']).count() > 12 {
            return Err("expression too deep".to_owned());
        }
        let expr = arithmetic::parse(text).map_err(|_| "arithmetic syntax error".to_owned())?;
        self.value(&expr, depth)
    }

    fn value(&mut self, expr: &Expr, depth: u32) -> Result<i64, String> {
        Ok(match expr {
            Expr::Literal(value) => *value,
            Expr::Reference(target) => self.target(target, depth)?,
            Expr::UnaryOp(op, inner) => {
                let inner = self.value(inner, depth)?;
                match op {
                    UnaryOperator::UnaryPlus => inner,
                    UnaryOperator::UnaryMinus => inner.wrapping_neg(),
                    UnaryOperator::BitwiseNot => !inner,
                    UnaryOperator::LogicalNot => i64::from(inner == 0),
                }
            }
            Expr::BinaryOp(Op::LogicalAnd, left, right) => {
                i64::from(self.value(left, depth)? != 0 && self.value(right, depth)? != 0)
            }
            Expr::BinaryOp(Op::LogicalOr, left, right) => {
                i64::from(self.value(left, depth)? != 0 || self.value(right, depth)? != 0)
            }
            Expr::BinaryOp(op, left, right) => {
                let (left, right) = (self.value(left, depth)?, self.value(right, depth)?);
                binary(op, left, right)?
            }
            Expr::Conditional(condition, yes, no) => {
                if self.value(condition, depth)? != 0 {
                    self.value(yes, depth)?
                } else {
                    self.value(no, depth)?
                }
            }
            Expr::Assignment(target, value) => {
                let value = self.value(value, depth)?;
                self.assign_target(target, value)?
            }
            Expr::BinaryAssignment(op, target, value) => {
                let value = binary(op, self.target(target, depth)?, self.value(value, depth)?)?;
                self.assign_target(target, value)?
            }
            Expr::UnaryAssignment(step, target) => {
                let before = self.target(target, depth)?;
                let by = if matches!(step, Step::PrefixIncrement | Step::PostfixIncrement) { 1 } else { -1 };
                let after = self.assign_target(target, before.wrapping_add(by))?;
                if matches!(step, Step::PrefixIncrement | Step::PrefixDecrement) { after } else { before }
            }
        })
    }

    fn target(&mut self, target: &ArithmeticTarget, depth: u32) -> Result<i64, String> {
        match target {
            ArithmeticTarget::Variable(name) => {
                let text = self.get(name).unwrap_or_default();
                self.evaluate(&text, depth + 1)
            }
            ArithmeticTarget::ArrayElement(..) => Err("arrays are not supported".to_owned()),
        }
    }

    fn assign_target(&mut self, target: &ArithmeticTarget, value: i64) -> Result<i64, String> {
        match target {
            ArithmeticTarget::Variable(name) => self.set(name, value.to_string()).map(|()| value),
            ArithmeticTarget::ArrayElement(..) => Err("arrays are not supported".to_owned()),
        }
    }
}

fn number(text: &str) -> Option<Result<i64, String>> {
    let (negative, digits) = text.strip_prefix('-').map_or((false, text), |rest| (true, rest));
    if !digits.starts_with(|c: char| c.is_ascii_digit()) || !digits.chars().all(|c| c.is_ascii_alphanumeric()) {
        return None;
    }
    let parsed = if let Some(hex) = digits.strip_prefix("0x").or_else(|| digits.strip_prefix("0X")) {
        i64::from_str_radix(hex, 16)
    } else if digits.len() > 1 && digits.starts_with('0') {
        i64::from_str_radix(digits, 8)
    } else {
        digits.parse()
    };
    Some(parsed.map(|value| if negative { -value } else { value }).map_err(|_| "not a number".to_owned()))
}

fn binary(op: &Op, left: i64, right: i64) -> Result<i64, String> {
    let shift = u32::try_from(right & 63).unwrap_or(0);
    Ok(match op {
        Op::Power => {
            left.wrapping_pow(u32::try_from(right).map_err(|_| "exponent less than 0 or too large".to_owned())?)
        }
        Op::Multiply => left.wrapping_mul(right),
        Op::Divide | Op::Modulo if right == 0 => return Err("division by zero".to_owned()),
        Op::Divide => left.wrapping_div(right),
        Op::Modulo => left.wrapping_rem(right),
        Op::Comma => right,
        Op::Add => left.wrapping_add(right),
        Op::Subtract => left.wrapping_sub(right),
        Op::ShiftLeft => left.wrapping_shl(shift),
        Op::ShiftRight => left.wrapping_shr(shift),
        Op::LessThan => i64::from(left < right),
        Op::LessThanOrEqualTo => i64::from(left <= right),
        Op::GreaterThan => i64::from(left > right),
        Op::GreaterThanOrEqualTo => i64::from(left >= right),
        Op::Equals => i64::from(left == right),
        Op::NotEquals => i64::from(left != right),
        Op::BitwiseAnd => left & right,
        Op::BitwiseXor => left ^ right,
        Op::BitwiseOr => left | right,
        Op::LogicalAnd => i64::from(left != 0 && right != 0),
        Op::LogicalOr => i64::from(left != 0 || right != 0),
    })
}
