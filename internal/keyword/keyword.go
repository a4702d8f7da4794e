// Package keyword recognises texts by which people opt out of further texts.
package keyword

import (
	"strings"
	"unicode"

	"golang.org/x/text/unicode/norm"
)

// optOuts are the keywords, normalised; INTERFACE section 4 fixes them. The French ones
// and UNSUBSCRIBE are the owner's, the others Twilio's own, which blocks on them whether
// we do or not.
const optOuts = " STOP ARRETER ARRET DESABONNER UNSUBSCRIBE STOPALL CANCEL END QUIT REVOKE OPTOUT "

// optIns are the words by which somebody may want to come back. Twilio's own list has
// YES too, which is far too loose for consent.
const optIns = " START UNSTOP "

// OptOut says whether a text is an opt-out, and by which keyword: in capitals without
// accents, "ARRET". Letter case, accents, and space, quotes, punctuation and emoji
// around the keyword do not matter. The keyword is the whole text or its first word,
// a number right behind it aside ("STOP36123").
//
// The first word is enough for every keyword, so that "arrêt maladie demain" opts its
// sender out: a person can undo an opt-out too many, while a text after a STOP can't be
// unsent. No other place in a text counts: "ne pas arrêter" is no opt-out.
func OptOut(text string) (keyword string, ok bool) {
	for _, word := range firstWord(text) {
		if listed(word, optOuts) {
			return word, true
		}
	}
	return "", false
}

// OptIn says whether a text is START or UNSTOP and nothing else, an asking to be texted
// again. It never opts anybody in by itself; a person has to decide.
func OptIn(text string) bool {
	words := strings.FieldsFunc(normalise(text), between)
	return len(words) == 1 && listed(strings.TrimRightFunc(words[0], unicode.IsDigit), optIns)
}

func listed(word, list string) bool { return word != "" && strings.Contains(list, " "+word+" ") }

// firstWord gives a text's first word, without a number behind it, in both ways in
// which punctuation may be meant: as its end ("STOP-SMS": STOP), or as a part of it
// ("OPT-OUT": OPTOUT). It is empty if the text has neither letters nor digits.
func firstWord(text string) (readings []string) {
	for field := range strings.FieldsSeq(normalise(text)) {
		words := strings.FieldsFunc(field, between)
		if len(words) == 0 {
			continue // punctuation only
		}
		for _, w := range []string{words[0], strings.Join(words, "")} {
			readings = append(readings, strings.TrimRightFunc(w, unicode.IsDigit))
		}
		return readings
	}
	return nil
}

// between says whether a character stands between words.
func between(r rune) bool { return !unicode.IsLetter(r) && !unicode.IsDigit(r) }

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
