//! Bar charts as SVG: horizontal bars in groups, on a ground of their own, so that they can be read on light and
//! dark pages alike. The same figures make the same file.

use std::fmt::Write as _;

const WIDTH: f64 = 960.0;
const MARGIN: f64 = 24.0;
/// Where bars begin: names are left of it.
const LEFT: f64 = 168.0;
/// The longest bar's length; what is written behind bars is right of it.
const LONGEST: f64 = 620.0;
const BAR: f64 = 22.0;
/// From one bar to the next.
const STEP: f64 = 32.0;
/// The heading of a group.
const HEADING: f64 = 40.0;
/// Titles, above the first group.
const HEAD: f64 = 72.0;

/// A chart.
#[derive(Clone, Debug)]
pub(super) struct Chart {
    /// What it shows, and in which unit.
    pub(super) title: String,
    /// How to read it.
    pub(super) subtitle: String,
    /// All groups have one scale; else each has its own.
    pub(super) has_one_scale: bool,
    /// Bars that are compared with one another.
    pub(super) groups: Vec<Group>,
}

/// Bars that belong together.
#[derive(Clone, Debug)]
pub(super) struct Group {
    pub(super) heading: String,
    pub(super) bars: Vec<Bar>,
}

/// A bar.
#[derive(Clone, Debug)]
pub(super) struct Bar {
    pub(super) label: String,
    pub(super) value: f64,
    /// The range that a thin line shows.
    pub(super) range: (f64, f64),
    /// What is written behind it.
    pub(super) note: String,
    /// Whether it is the one that the chart is about.
    pub(super) is_ours: bool,
}

impl Chart {
    /// The whole file.
    pub(super) fn svg(&self) -> String {
        let groups = self.groups.iter();
        let height = groups.map(Group::height).sum::<f64>() + HEAD + MARGIN;
        let (title, subtitle) = (escape(&self.title), escape(&self.subtitle));
        let mut svg = format!(
            r##"<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" font-family="ui-sans-serif, system-ui, sans-serif" font-size="14" role="img" aria-labelledby="t d">
  <title id="t">{title}</title>
  <desc id="d">{}</desc>
  <rect width="{WIDTH}" height="{height}" rx="12" fill="#f8fafc"/>
  <text x="{MARGIN}" y="36" font-size="18" font-weight="600" fill="#0f172a">{title}</text>
  <text x="{MARGIN}" y="58" fill="#475569">{subtitle}</text>
"##,
            escape(&self.in_words())
        );
        let mut y = HEAD;
        let most = self.groups.iter().map(Group::most).fold(0.0, f64::max);
        for group in &self.groups {
            let most = if self.has_one_scale {
                most
            } else {
                group.most()
            };
            group.draw(y, most, &mut svg);
            y += group.height();
        }
        svg + "</svg>\n"
    }

    /// For those who cannot see it.
    fn in_words(&self) -> String {
        let of = |group: &Group| {
            let bars = group.bars.iter();
            let bars: Vec<_> = bars.map(|it| format!("{} {}", it.label, it.note)).collect();
            format!("{}: {}.", group.heading, bars.join("; "))
        };
        self.groups.iter().map(of).collect::<Vec<_>>().join(" ")
    }
}

impl Group {
    fn height(&self) -> f64 {
        self.bars.iter().map(|_| STEP).sum::<f64>() + HEADING
    }

    /// The largest value that is drawn.
    fn most(&self) -> f64 {
        let all = self.bars.iter().flat_map(|bar| [bar.value, bar.range.1]);
        all.fold(0.0, f64::max)
    }

    fn draw(&self, top: f64, most: f64, svg: &mut String) {
        let scale = if most > 0.0 { LONGEST / most } else { 0.0 };
        let baseline = top + HEADING - 14.0;
        let heading = escape(&self.heading);
        let _ = writeln!(
            svg,
            r##"  <text x="{MARGIN}" y="{baseline}" font-weight="600" fill="#334155">{heading}</text>"##
        );
        let mut y = top + HEADING;
        for bar in &self.bars {
            bar.draw(y, scale, svg);
            y += STEP;
        }
    }
}

impl Bar {
    fn draw(&self, y: f64, scale: f64, svg: &mut String) {
        let (fill, weight) = if self.is_ours {
            ("#2563eb", "600")
        } else {
            ("#94a3b8", "400")
        };
        let (label, note) = (escape(&self.label), escape(&self.note));
        let (length, low, high) = (
            self.value * scale,
            LEFT + self.range.0 * scale,
            LEFT + self.range.1 * scale,
        );
        let (middle, text) = (y + BAR / 2.0, y + 16.0);
        let (before, behind) = (LEFT - 12.0, high.max(LEFT + length) + 10.0);
        let _ = write!(
            svg,
            r##"  <text x="{before}" y="{text}" text-anchor="end" font-weight="{weight}" fill="#0f172a">{label}</text>
  <rect x="{LEFT}" y="{y}" width="{length:.1}" height="{BAR}" rx="3" fill="{fill}"/>
  <path d="M{low:.1} {middle}H{high:.1}" stroke="#0f172a" stroke-width="1.5"/>
  <text x="{behind:.1}" y="{text}" font-weight="{weight}" fill="#0f172a">{note}</text>
"##
        );
    }
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
        .replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chart() -> Chart {
        let bar = |label: &str, value| Bar {
            label: label.to_owned(),
            value,
            range: (value * 0.9, value * 1.1),
            note: format!("{value:.0}"),
            is_ours: label == "b & c",
        };
        Chart {
            title: "Speed <of all>".to_owned(),
            subtitle: "more is better".to_owned(),
            has_one_scale: false,
            groups: vec![Group {
                heading: "new".to_owned(),
                bars: vec![bar("a", 100.0), bar("b & c", 50.0)],
            }],
        }
    }

    #[test]
    fn lengths_are_in_proportion_and_text_is_escaped() {
        let svg = chart().svg();
        assert!(
            svg.contains("<title id=\"t\">Speed &lt;of all&gt;</title>"),
            "{svg}"
        );
        assert!(svg.contains(">b &amp; c</text>"), "{svg}");
        // The longest is what ends with the range of the longest bar.
        assert!(
            svg.contains("width=\"563.6\"") && svg.contains("width=\"281.8\""),
            "{svg}"
        );
        assert_eq!(svg.matches("#2563eb").count(), 1);
        assert_eq!(svg, chart().svg());
    }

    #[test]
    fn nothing_to_show_is_a_chart_all_the_same() {
        let mut chart = chart();
        chart.groups[0].bars.retain(|_| false);
        assert!(chart.svg().ends_with("</svg>\n"));
    }
}
