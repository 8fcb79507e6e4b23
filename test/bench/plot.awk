# For plot.sh: draws rows/s as SVG, by workers at a number of rows (at) and by rows.
#
# Read are lines of rows, entrant, rows/s, the rows ascending; written under it are
# the facts of the machine. Colours follow the reader's, light or dark.

BEGIN {
	colour("limit", "limit", "#59636e", "#9198a1")
	colour("peer_sql", "peer", "#bc4c00", "#f0883e")
	colour("inline", "w0", "#0f766e", "#2dd4bf")
	colour("1 worker", "w1", "#0969da", "#58a6ff")
	colour("2 workers", "w2", "#6639ba", "#a371f7")
	colour("4 workers", "w4", "#bf3989", "#f778ba")
	top = 50; bottom = 330
}

{
	figure[$1, $2] = $3
	if (!($1 in seen)) {
		seen[$1] = 1
		size[++sizes] = $1
	}
	if ($3 + 0 > most)
		most = $3 + 0
}

END {
	if (!sizes || !((at, "limit") in figure)) {
		print "plot.awk: nothing to draw at " at " rows" > "/dev/stderr"
		exit 1
	}
	scale()
	open_svg()
	by_workers(70, 360)
	by_rows(490, 800)
	text(70, 388, "start", "m", 11, facts)
	print "</svg>"
}

function colour(name, class, light, dark)
{
	names[++entrants] = name
	class_of[name] = class
	css = css "." class "{fill:" light ";stroke:" light "}"
	css_dark = css_dark "." class "{fill:" dark ";stroke:" dark "}"
}

# Some five lines at round numbers; the topmost is above all figures.
function scale(  rough)
{
	rough = most / 5
	step = 1
	while (step * 10 <= rough)
		step *= 10
	if (step * 5 <= rough)
		step *= 5
	else if (step * 2 <= rough)
		step *= 2
	highest = step * (int(most / step) + 1)
}

function y(value)
{
	return bottom - (bottom - top) * value / highest
}

function open_svg()
{
	print "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 880 400\" width=\"880\" height=\"400\" font-family=\"sans-serif\" role=\"img\">"
	print "<title>Rows per second by workers and by rows</title>"
	print "<style>.bg{fill:#fff}.t{fill:#1f2328}.m{fill:#59636e}.g{stroke:#d1d9e0}" css
	print ".line{fill:none;stroke-width:2}.dash{stroke-dasharray:5 4}.text{stroke:none}"
	print "@media(prefers-color-scheme:dark){.bg{fill:#0d1117}.t{fill:#e6edf3}.m{fill:#9198a1}.g{stroke:#30363d}" css_dark
	print ".line{fill:none}.text{stroke:none}}</style>"
	print "<rect class=\"bg\" width=\"880\" height=\"400\"/>"
}

function frame(left, right, title,  value)
{
	text(left, 24, "start", "t", 14, title)
	for (value = 0; value <= highest; value += step) {
		printf "<path class=\"g\" d=\"M%d %.1fH%d\"/>\n", left, y(value), right
		text(left - 6, y(value) + 4, "end", "m", 11, thousands(value))
	}
}

function by_workers(left, right,  n, name, wide, x, height)
{
	frame(left, right, "rows/s by workers, " thousands(at) " rows")
	wide = (right - left) / (entrants - 2)
	for (n = 3; n <= entrants; n++) {
		name = names[n]
		if (!((at, name) in figure))
			continue
		x = left + wide * (n - 3)
		height = y(figure[at, name])
		printf "<rect class=\"%s\" x=\"%.1f\" y=\"%.1f\" width=\"%.1f\" height=\"%.1f\"/>\n", class_of[name], x + wide * 0.15, height, wide * 0.7, bottom - height
		if (bottom - height > 20)
			text(x + wide / 2, bottom - 7, "middle", "bg", 11, thousands(figure[at, name]))
		else
			text(x + wide / 2, height - 5, "middle", "t", 11, thousands(figure[at, name]))
		text(x + wide / 2, bottom + 17, "middle", "m", 11, name)
	}
	for (n = 1; n <= 2; n++) {
		height = y(figure[at, names[n]])
		printf "<path class=\"line dash %s\" d=\"M%d %.1fH%d\"/>\n", class_of[names[n]], left, height, right
		text(right + 2, height + 4, "start", class_of[names[n]] " text", 11, names[n])
	}
}

function by_rows(left, right,  n, i, x, name, path, last, labels, label, at_y)
{
	frame(left, right, "rows/s by rows")
	for (i = 1; i <= sizes; i++)
		text(place(i, left, right), bottom + 17, "middle", "m", 11, thousands(size[i]))
	for (n = 1; n <= entrants; n++) {
		name = names[n]
		path = ""
		for (i = 1; i <= sizes; i++)
			if ((size[i], name) in figure) {
				x = place(i, left, right)
				last = y(figure[size[i], name])
				path = path sprintf("%s%.1f %.1f", path == "" ? "M" : "L", x, last)
				printf "<circle class=\"%s\" cx=\"%.1f\" cy=\"%.1f\" r=\"2.5\"/>\n", class_of[name], x, last
			}
		if (path == "")
			continue
		printf "<path class=\"line%s %s\" d=\"%s\"/>\n", n <= 2 ? " dash" : "", class_of[name], path
		# names from the highest line down, none over another
		for (i = ++labels; i > 1 && at_y[i - 1] > last; i--) {
			at_y[i] = at_y[i - 1]
			label[i] = label[i - 1]
		}
		at_y[i] = last
		label[i] = name
	}
	for (i = 1; i <= labels; i++) {
		if (i > 1 && at_y[i] < at_y[i - 1] + 13)
			at_y[i] = at_y[i - 1] + 13
		text(right + 8, at_y[i] + 4, "start", class_of[label[i]] " text", 11, label[i])
	}
}

# Rows on a logarithmic axis.
function place(i, left, right)
{
	return sizes == 1 ? (left + right) / 2 : left + (right - left) * log(size[i] / size[1]) / log(size[sizes] / size[1])
}

function text(left, base, anchor, class, points, says)
{
	gsub(/&/, "\\&amp;", says)
	gsub(/</, "\\&lt;", says)
	gsub(/>/, "\\&gt;", says)
	printf "<text class=\"%s\" x=\"%.1f\" y=\"%.1f\" text-anchor=\"%s\" font-size=\"%d\">%s</text>\n", class, left, base, anchor, points, says
}

function thousands(value,  digits, rest)
{
	for (digits = sprintf("%d", value); length(digits) > 3; digits = substr(digits, 1, length(digits) - 3))
		rest = "," substr(digits, length(digits) - 2) rest
	return digits rest
}
