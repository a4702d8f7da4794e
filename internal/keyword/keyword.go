// Package keyword recognises texts by which people opt out of further texts.
package keyword

import (
	"strings"
	"unicode"

	"golang.org/x/text/unicode/norm"
)

// optOut and optIn are the words, as normalised. The first list is ours and Twilio's;
// INTERFACE section 4 fixes it.
const (
	optOut = " STOP ARRETER ARRET DESABONNER UNSUBSCRIBE STOPALL CANCEL END QUIT REVOKE OPTOUT "
	optIn  = " START UNSTOP "
)

// OptOut says whether a text is an opt-out, and by which keyword: upper case without
// accents, "ARRET". Letter case, accents, and spaces, quotes, punctuation and emoji
// around the keyword, or between its letters, do not matter. The keyword is the whole
// text or its first word, a number right behind it aside ("STOP36123").
//
// The first word is enough for every keyword, so that "arrêt maladie demain" opts its
// sender out: an opt-out too many costs us a reader, one too few texts somebody who
// said stop. No other place in the text counts: "ne pas arrêter" is no opt-out.
func OptOut(text string) (keyword string, ok bool) { return find(text, optOut) }

// OptIn says whether a text asks to be texted again (START, UNSTOP), by the same rule
// as OptOut. Such a text never opts anybody in by itself; a person has to decide.
func OptIn(text string) bool {
	_, ok := find(text, optIn)
	return ok
}

// find looks for the keyword of a list that is a text's first word or all of it.
func find(text, list string) (keyword string, ok bool) {
	text = normalise(text)
	between := func(r rune) bool { return !unicode.IsLetter(r) && !unicode.IsDigit(r) }
	words := strings.FieldsFunc(text, between)
	if len(words) == 0 {
		return "", false
	}
	// The same without punctuation, for "OPT-OUT please".
	bare := strings.Fields(strings.Map(func(r rune) rune {
		if between(r) && !unicode.IsSpace(r) {
			return -1
		}
		return r
	}, text))
	for _, word := range []string{words[0], bare[0], strings.Join(bare, "")} {
		if word = strings.TrimRightFunc(word, unicode.IsDigit); word != "" && strings.Contains(list, " "+word+" ") {
			return word, true
		}
	}
	return "", false
}

// normalise makes every way of writing a letter one: upper case, full-width and
// accented forms decomposed (one letter or a letter and its accent are the same text
// to the reader), accents and invisible marks dropped.
func normalise(text string) string {
	return strings.ToUpper(strings.Map(func(r rune) rune {
		if unicode.In(r, unicode.Mn, unicode.Cf) {
			return -1
		}
		return r
	}, norm.NFKD.String(text)))
}
