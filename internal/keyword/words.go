package keyword

import (
	"strings"
	"unicode"

	"golang.org/x/text/unicode/norm"
)

// A word is letters and digits in capitals without accents. clause: something that ends
// a clause stands before it, across which no negation reaches.
type word struct {
	text   string
	clause bool
}

// split gives a text's words. Letters that stand alone, one behind the other, are one
// word ("S T O P"), and so is what dots and dashes hold together ("S.T.O.P", "opt-out" is
// two words that stand together).
func split(text string) []word {
	text = normalise(text)
	words := make([]word, 0, usual)
	clause := false
	begin := -1 // of the word that is being read
	end := func(at int) (single bool) {
		if begin < 0 {
			return false
		}
		words = append(words, word{text[begin:at], clause})
		single = at-begin == 1
		begin, clause = -1, false
		return single
	}
	for i, r := range text {
		switch {
		case unicode.IsLetter(r) || unicode.IsDigit(r):
			if begin < 0 {
				begin = i
			}
		case strings.ContainsRune(",;:!?\n\r…", r):
			end(i)
			clause = true
		case r == '.':
			// The end of a sentence, unless it stands between single letters.
			clause = !end(i)
		default:
			end(i)
		}
	}
	end(len(text))
	return together(words)
}

// usual is how many words most texts have at the most.
const usual = 16

// spaced is the least number of single letters that make a word.
const spaced = 3

// together joins runs of single letters. French has words of one letter, of which two may
// stand together ("n y"), but not three.
func together(words []word) []word {
	out := words[:0] // never longer than what was read
	for i := 0; i < len(words); {
		n := i
		for n < len(words) && len([]rune(words[n].text)) == 1 && unicode.IsLetter([]rune(words[n].text)[0]) {
			n++
		}
		if n-i < spaced {
			out = append(out, words[i])
			i++
			continue
		}
		joined := word{clause: words[i].clause}
		for ; i < n; i++ {
			joined.text += words[i].text
		}
		out = append(out, joined)
	}
	return out
}

// onlySigns judges a text without any letter: a stop sign is for a person.
func onlySigns(text string) Meaning {
	if strings.ContainsAny(text, "🛑⛔🚫✋") {
		return Unclear
	}
	return Nothing
}

// normalise makes every way of writing a letter one: capitals, full-width and accented
// forms decomposed (é may be one letter or two), accents and invisible marks dropped.
func normalise(text string) string {
	return strings.ToUpper(strings.Map(func(r rune) rune {
		if unicode.In(r, unicode.Mn, unicode.Cf) {
			return -1
		}
		return r
	}, norm.NFKD.String(text)))
}
