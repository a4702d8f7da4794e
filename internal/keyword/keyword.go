// Package keyword judges whether a text that somebody sent us asks for no more texts.
//
// The law asks for a simple way out, so the rule errs towards hearing a STOP: a
// keyword is heard when it is the whole text, or its first word. "Arrêt maladie demain"
// is therefore taken as one, though nobody may have meant it: a person can undo that,
// while a text after a STOP can't be unsent. A keyword further inside a text is none
// ("ne pas arreter").
package keyword

import (
	"strings"
	"unicode"

	"golang.org/x/text/unicode/norm"
)

// optOuts are the keywords, normalised: the French ones and UNSUBSCRIBE are the
// owner's, the others Twilio's own, which blocks on them whether we do or not.
var optOuts = map[string]bool{
	"STOP": true, "ARRETER": true, "ARRET": true, "DESABONNER": true, "UNSUBSCRIBE": true,
	"STOPALL": true, "CANCEL": true, "END": true, "QUIT": true, "REVOKE": true, "OPTOUT": true,
}

// optIns are the words by which a person may want to come back. Nothing happens by
// itself: Twilio's own list holds YES too, which is far too loose for consent.
var optIns = map[string]bool{"START": true, "UNSTOP": true}

// OptOut gives the keyword by which a text opts out, e.g. "ARRET"; false if it does not.
func OptOut(text string) (string, bool) {
	first := firstWord(text)
	return first, optOuts[first]
}

// OptIn says whether a text asks to be texted again: START or UNSTOP, and nothing else.
func OptIn(text string) bool {
	w := words(text)
	return len(w) == 1 && optIns[w[0]]
}

func firstWord(text string) string {
	if w := words(text); len(w) > 0 {
		return w[0]
	}
	return ""
}

// words splits a text at everything that is no letter or digit, in capitals without
// accents: « Arrêt ! » → ARRET. Marks that one can't see do not split.
func words(text string) []string {
	const longest = 4096 // an SMS has 1600 characters at most
	text = text[:min(len(text), longest)]
	plain := strings.Map(func(r rune) rune {
		if unicode.In(r, unicode.Mn, unicode.Cf) {
			return -1
		}
		return unicode.ToUpper(r)
	}, norm.NFKD.String(text))
	return strings.FieldsFunc(plain, func(r rune) bool { return !unicode.IsLetter(r) && !unicode.IsDigit(r) })
}
