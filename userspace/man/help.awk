# SPDX-License-Identifier: GPL-2.0-only
# awk -f help.awk PAGE...: for each manual page a C string with what --help says: the synopsis, the first
# paragraph of the description, the first sentence about each command and option, the exit status. Then the verbs.
# Understands the roff that the pages here use.

BEGIN {
	WIDTH = 88
	COLUMN = 33 # where descriptions begin, unless all the tags are shorter
	print "/* Made by help.awk from the manual pages. */"
	print "#include \"man/help.h\""
}

# ---- roff to text ---------------------------------------------------------------------

function plain(s) {
	gsub(/\\f[A-Z]/, "", s)
	gsub(/\\-/, "-", s)
	gsub(/\\&/, "", s)
	gsub(/\\ /, " ", s)
	return s
}

# The arguments of a macro, joined as .B and .I do, or as .BR and the like do.
function arguments(line, glue, out, one) {
	sub(/^\.[A-Z]+ */, "", line)
	out = ""
	while (line != "") {
		if (line ~ /^"/) {
			line = substr(line, 2)
			one = index(line, "\"") ? substr(line, 1, index(line, "\"") - 1) : line
			line = substr(line, length(one) + 2)
		} else {
			one = line
			sub(/ .*/, "", one)
			line = substr(line, length(one) + 1)
		}
		sub(/^ +/, "", line)
		out = out one (line == "" ? "" : glue)
	}
	return out
}

function text_of(line) {
	if (line ~ /^\.[BI] /)
		return plain(arguments(line, " "))
	if (line ~ /^\.(BR|BI|RB|RI|IR|IB) /)
		return plain(arguments(line, ""))
	return plain(line)
}

function first_sentence(s) {
	if (match(s, /\. /))
		return substr(s, 1, RSTART)
	return s
}

# ---- C strings ------------------------------------------------------------------------

function emit(s) {
	sub(/ +$/, "", s)
	gsub(/\\/, "\\\\", s)
	gsub(/"/, "\\\"", s)
	printf "\n\t\"%s\\n\"", s
}

function spaces(n) {
	return sprintf("%" n "s", "")
}

# Lines of WIDTH at most: the first begins with @first, the others with @indent blanks.
function wrap(first, indent, s, n, i, words, line, empty) {
	n = split(s, words, " ")
	line = first
	empty = 1
	for (i = 1; i <= n; i++) {
		if (!empty && length(line) + 1 + length(words[i]) > WIDTH) {
			emit(line)
			line = spaces(indent)
			empty = 1
		}
		line = line (empty ? "" : " ") words[i]
		empty = 0
	}
	emit(line)
}

# ---- paragraphs and tagged ones ---------------------------------------------------------

# What was collected is complete: it has a tag or none, and belongs to the section.
function end_paragraph() {
	if (tag == "" && body == "")
		return
	if (section == "SYNOPSIS")
		wrap(nr_usages++ ? "       " : "Usage: ", 11, body)
	else if (section == "DESCRIPTION") {
		if (!described++)
			wrap("", 0, body)
	} else if (section == "EXIT STATUS" && tag == "" && !nr_entries) {
		emit("")
		wrap("Exit status: ", 0, body)
	} else if (section == "OPTIONS" || section == "COMMANDS" || section == "EXIT STATUS") {
		tags[++nr_entries] = tag == "" ? "" : spaces(2 * depth) tag
		bodies[nr_entries] = tag == "" ? body : first_sentence(body)
	}
	tag = body = ""
}

function end_section(i, column) {
	end_paragraph()
	if (!nr_entries)
		return
	emit("")
	if (section == "EXIT STATUS")
		emit("Exit status:")
	column = 0
	for (i = 1; i <= nr_entries; i++)
		if (length(tags[i]) + 2 > column)
			column = length(tags[i]) + 2
	if (column > COLUMN)
		column = COLUMN
	for (i = 1; i <= nr_entries; i++) {
		if (tags[i] == "") {
			wrap("", 0, bodies[i])
		} else if (length(tags[i]) + 2 > column && bodies[i] != "") {
			emit(tags[i])
			wrap(spaces(column), column, bodies[i])
		} else
			wrap(sprintf("%-" column "s", tags[i]), column, bodies[i])
	}
	nr_entries = 0
}

function end_page() {
	if (page == "")
		return
	end_section()
	print ";"
}

FNR == 1 {
	end_page()
	page = FILENAME
	sub(/.*\//, "", page)
	sub(/\.8$/, "", page)
	sub(/^qcow-/, "", page)
	printf "\nconst char help_%s[] =", page
	if (FILENAME ~ /\/qcow-/)
		verbs[++nr_verbs] = page
	section = tag = body = ""
	nr_usages = described = depth = wants_tag = glued = 0
}

/^\.\\"/ || /^\.TH / { next }
/^\.SH / { end_section(); section = arguments($0, " "); depth = 1; next }
/^\.TP/ { end_paragraph(); wants_tag = 1; next }
/^\.(PP|br)$/ { end_paragraph(); next }
/^\.RS/ { end_paragraph(); depth++; next }
/^\.RE/ { end_paragraph(); depth--; next }
/^\.(nf|fi|EX|EE)$/ { next }
{
	line = text_of($0)
	if (wants_tag) {
		tag = line
		wants_tag = 0
		next
	}
	body = body (body == "" || glued ? "" : " ") line
	glued = sub(/\\c$/, "", body)
}

END {
	end_page()
	print "\nconst struct help help_verbs[] = {"
	for (i = 1; i <= nr_verbs; i++)
		printf "\t{ \"%s\", help_%s },\n", verbs[i], verbs[i]
	print "\t{ 0 }\n};"
}
