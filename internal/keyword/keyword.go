// Package keyword judges what somebody answers to a text: whether it opts out of further
// texts, may mean that and is for a person to read, asks to be texted again, asks who
// writes, or none of these.
//
// The five words of the owner's document and their inflections count where they are the
// first word, politeness aside, since whoever begins with STOP wants that. Twilio's other
// words are everyday English, and count only where they are all that is said.
//
// https://www.twilio.com/docs/messaging/tutorials/advanced-opt-out
package keyword

import "strings"

// A Meaning is what a text amounts to.
type Meaning string

// The meanings.
const (
	Nothing Meaning = ""        // an ordinary answer
	OptOut  Meaning = "opt_out" // no more texts
	Unclear Meaning = "unclear" // it has a word of an opt-out, and is for a person
	OptIn   Meaning = "opt_in"  // texts again; a person decides
	Contact Meaning = "contact" // who is it that writes
)

// The keywords of opt-outs, as records have them: the owner's five, beside Twilio's own.
const (
	Stop        = "STOP"
	Arreter     = "ARRETER"
	Arret       = "ARRET"
	Desabonner  = "DESABONNER"
	Unsubscribe = "UNSUBSCRIBE"
	optedOut    = "OPTOUT"
)

// Judge says what a text amounts to, and by which keyword where it is an opt-out. Letter
// case, accents, width, invisible characters, and space, quotes, punctuation and emoji
// around words do not matter.
func Judge(text string) (m Meaning, keyword string) {
	words := split(text)
	if len(words) == 0 {
		return onlySigns(text), ""
	}
	if whole, ok := alone(words); ok {
		return whole.Meaning, whole.keyword
	}
	rest := words[polite(words):]
	if len(rest) > 0 && !negated(words, len(words)-len(rest)) {
		if k := amounts(rest[0].text); k != "" {
			return OptOut, k
		}
	}
	if optOutPhrase(words) {
		return OptOut, optedOut
	}
	if noMore(words) {
		return OptOut, Stop
	}
	for i, w := range words {
		if hints(w.text) && !negated(words, i) {
			return Unclear, ""
		}
	}
	if refuses(words) {
		return Unclear, ""
	}
	return Nothing, ""
}

// amounts is the keyword that a word amounts to; "" if it is none of an opt-out. A number
// right behind a word does not matter, as in STOP36123.
func amounts(word string) string {
	word = strings.TrimRight(word, "0123456789")
	switch word {
	case "STOP", "STOPP", "STOPSMS", "СТОП": // the last in Cyrillic letters
		return Stop
	case "ARRET":
		return Arret
	case "ARRETE", "ARRETEZ", "ARRETER":
		return Arreter
	case "UNSUBSCRIBE":
		return Unsubscribe
	}
	if strings.HasPrefix(word, "DESABONN") || strings.HasPrefix(word, "DESINSCRI") {
		return Desabonner
	}
	return ""
}

// twilios are the words by which Twilio opts out on its own, where they are the whole
// text; it has then blocked the number, whether we like the word or not.
const twilios = " STOPALL CANCEL END QUIT REVOKE OPTOUT "

type judgement struct {
	Meaning
	keyword string
}

// alone judges a text that is one word, or two that are one.
func alone(words []word) (judgement, bool) {
	if len(words) > 2 || amounts(words[0].text) != "" {
		return judgement{}, false
	}
	joined := words[0].text
	for _, w := range words[1:] {
		joined += w.text
	}
	if len(joined) > 20 {
		return judgement{}, false
	}
	switch bare := strings.TrimRight(joined, "0123456789"); {
	case bare == "":
	case amounts(bare) != "": // "STO P"
		return judgement{OptOut, amounts(bare)}, true
	case strings.Contains(twilios, " "+bare+" "):
		return judgement{OptOut, bare}, true
	case len(words) > 1:
	case bare == "START" || bare == "UNSTOP":
		return judgement{OptIn, ""}, true
	case bare == "CONTACT" || bare == "HELP" || bare == "AIDE":
		return judgement{Contact, ""}, true
	case bare == "REMOVE":
		return judgement{Unclear, ""}, true
	}
	return judgement{}, false
}

// politeness is what may stand before the word that counts. Longer ones come first.
var politeness = [][]string{
	{"S", "IL", "VOUS", "PLAIT"}, {"S", "IL", "TE", "PLAIT"}, {"I", "WOULD", "LIKE", "TO"}, {"I", "WANT", "TO"}, {"I", "D", "LIKE", "TO"},
	{"MERCI", "DE", "BIEN", "VOULOIR"}, {"MERCI", "DE"}, {"MERCI", "D"}, {"JE", "VEUX"}, {"JE", "VOUDRAIS"}, {"JE", "SOUHAITE"}, {"J", "AIMERAIS"},
	{"VEUILLEZ"}, {"SVP"}, {"STP"}, {"PLEASE"}, {"PLS"}, {"PLZ"}, {"ME"}, {"M"}, {"RE"}, {"FWD"}, {"TR"},
}

// polite is how many words of politeness a text begins with.
func polite(words []word) int {
	n := 0
next:
	for n < len(words) {
		for _, p := range politeness {
			if begins(words[n:], p) {
				n += len(p)
				continue next
			}
		}
		break
	}
	return n
}

func begins(words []word, with []string) bool {
	if len(words) < len(with) {
		return false
	}
	for i, w := range with {
		if words[i].text != w {
			return false
		}
	}
	return true
}

// negations turn the word behind them into its opposite: "ne pas arrêter", "non-stop".
const negations = " NE N PAS JAMAIS NON NOT NEVER DONT DON DOESNT DIDNT WONT CANT COULDNT SANS "

// reach is how many words a negation governs: "je ne peux pas m'arrêter".
const reach = 4

// negated says whether the word at i is denied within its clause, before it or, as in
// "n'arrêtez pas" and "ça ne s'arrête pas", around it.
func negated(words []word, i int) bool {
	for k := i; k > 0 && i-k < reach; k-- {
		if words[k].clause {
			return false
		}
		if strings.Contains(negations, " "+words[k-1].text+" ") {
			return true
		}
	}
	return false
}

// optOutPhrase finds "opt out" in any spelling, unless it is denied.
func optOutPhrase(words []word) bool {
	for i, w := range words {
		at := w.text == "OPTOUT" || w.text == "OPTINGOUT"
		if w.text == "OPT" || w.text == "OPTING" || w.text == "OPTED" {
			for k := i + 1; k < len(words) && k <= i+2; k++ { // "opt me out"
				at = at || words[k].text == "OUT" && !words[k].clause
			}
		}
		if at && !negated(words, i) {
			return true
		}
	}
	return false
}

// noMore finds "ne … plus … recevoir".
func noMore(words []word) bool {
	for i, w := range words {
		if w.text != "PLUS" {
			continue
		}
		ne, recevoir := false, false
		for k := max(0, i-5); k < i; k++ {
			ne = ne || words[k].text == "NE" || words[k].text == "N"
		}
		for k := i + 1; k < len(words) && k <= i+4; k++ {
			recevoir = recevoir || words[k].text == "RECEVOIR"
		}
		if ne && recevoir {
			return true
		}
	}
	return false
}

// slips are words of an opt-out as a hurried thumb leaves them, and cut short.
const slips = " SOTP STPO TSOP ST0P 5TOP ARETE ARETER ARETEZ DESAB DESABO UNSUSCRIBE "

// hints says whether a word is one by which people opt out, wherever it stands.
func hints(word string) bool {
	bare := strings.TrimRight(word, "0123456789")
	switch {
	case amounts(word) != "", strings.Contains(twilios, " "+bare+" "), strings.Contains(slips, " "+bare+" "):
		return true
	case strings.HasPrefix(bare, "STOPP"), strings.HasPrefix(bare, "UNSUB"), stretched(bare):
		return true
	}
	return false
}

// stretched says whether a word is STOP, each letter once or several times: "SSTOOOP".
func stretched(word string) bool {
	for i := range len(Stop) {
		rest := strings.TrimLeft(word, Stop[i:i+1])
		if rest == word {
			return false
		}
		word = rest
	}
	return word == ""
}

// refusals are what is no keyword, and yet nobody would text on.
var refusals = phrases(`
plus de sms, plus de message, plus de messages, plus de texto, plus de textos, plus de pub, pas de pub
plus aucun sms, plus aucun message, plus recevoir, no more texts, no more messages, no more sms
m envoyez plus, n envoyez plus, nous envoyez plus, m envoie plus, envoyez plus rien
me contactez plus, nous contactez plus, me contacte plus, m ecrivez plus, m ecris plus, m appelez plus, n appelez plus
plus m envoyer, plus m ecrire, plus m appeler, plus me contacter, plus me texter
not text me, dont text me, don t text me, not contact me, dont contact me, don t contact me, not message me, text me again
leave me alone, laissez moi tranquille, laisse moi tranquille, laissez moi en paix, foutez moi, fichez moi
remove me, remove my, delete me, delete my, take me off
retirez moi, me retirer, retirez mon, supprimez moi, supprimez mon, supprimer mon, effacez mon, enlevez moi, enlevez mon
`)

// phrases reads phrases, which commas and lines part, into words as split gives them.
func phrases(list string) (all [][]string) {
	for phrase := range strings.FieldsFuncSeq(strings.ToUpper(list), func(r rune) bool { return r == ',' || r == '\n' }) {
		all = append(all, strings.Fields(phrase))
	}
	return all
}

// refuses finds a refusal anywhere in a text.
func refuses(words []word) bool {
	for i := range words {
		for _, phrase := range refusals {
			if begins(words[i:], phrase) {
				return true
			}
		}
	}
	return false
}
