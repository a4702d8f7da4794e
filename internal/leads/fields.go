package leads

import (
	"regexp"
	"slices"
	"strings"
)

// A fieldKind is what a form's field asks for.
type fieldKind string

// The kinds.
const (
	otherField  fieldKind = "other"
	phoneField  fieldKind = "phone"
	emailField  fieldKind = "email"
	nameField   fieldKind = "full_name"
	firstField  fieldKind = "first_name"
	lastField   fieldKind = "last_name"
	agreesField fieldKind = "consent"
)

// kindOf says what a field asks for, by its name as plain writes it. Meta's own names are
// the same in every language; those of people's own questions are whatever they typed,
// cut by Meta and with underscores for spaces: "quel_est_votre_numéro_de_téléphone_?".
func kindOf(plain string) fieldKind {
	words := strings.Split(plain, "_")
	has := func(any ...string) bool {
		return slices.ContainsFunc(words, func(w string) bool { return slices.Contains(any, w) })
	}
	begins := func(any ...string) bool {
		return slices.ContainsFunc(words, func(w string) bool {
			return slices.ContainsFunc(any, func(p string) bool { return strings.HasPrefix(w, p) })
		})
	}
	if has("consent", "consentement", "rgpd", "gdpr", "agree", "accepte", "acceptez", "accept", "newsletter", "optin") || strings.Contains(plain, "opt_in") {
		return agreesField
	}
	switch { // a question about something else, in which such a word occurs
	case len(words) > 12,
		has("type", "marque", "modele", "forfait", "operateur", "brand", "model", "plan", "quand", "when", "time", "moment", "comment", "how",
			"combien", "nombre", "moyen", "method", "way", "pourquoi", "why", "avez", "possedez", "do"),
		begins("prefer", "heure", "horaire", "assur", "souhait", "recevoir", "receive", "abonn", "joign", "rappel"):
		return otherField
	case emails[plain] || has("email", "emails", "mail", "courriel", "mel") || strings.Contains("_"+plain+"_", "_e_mail_"):
		return emailField
	case phones[plain] || isPhone(has):
		return phoneField
	case has("entreprise", "societe", "company", "business", "produit", "product", "chien", "animal", "enfant", "child", "pet", "utilisateur", "user",
		"username", "projet", "project", "site", "ville", "city", "rue", "street", "magasin", "store", "conjoint", "parrain", "organisation", "ecole", "school"):
		return otherField
	}
	return nameKind(plain, has)
}

// phones and emails are names that the words below would not tell.
var (
	phones = map[string]bool{"contact_number": true, "number": true, "votre_numero": true, "numero": true, "mon_numero": true, "your_number": true, "num": true}
	emails = map[string]bool{"contact_email": true, "adresse_mail": true}
)

func isPhone(has func(...string) bool) bool {
	if has("telephone", "telephones", "tel", "phone", "phonenumber", "mobile", "portable", "gsm", "whatsapp", "cellphone", "cell", "handy", "telefon", "telefono") {
		return true
	}
	// A number that is no other number.
	return has("numero", "number", "num") && has("contact", "joindre", "appeler", "call", "reach", "sms")
}

func nameKind(plain string, has func(...string) bool) fieldKind {
	first := has("prenom", "prenoms", "firstname", "forename", "givenname") || strings.Contains(plain, "first_name") || strings.Contains(plain, "given_name")
	last := has("nom", "surname", "lastname", "familyname") || strings.Contains(plain, "last_name") || strings.Contains(plain, "family_name")
	switch {
	case first && last, strings.Contains(plain, "nom_complet"), strings.Contains(plain, "full_name"), plain == "fullname", plain == "nomprenom":
		return nameField
	case first:
		return firstField
	case last:
		return lastField
	case has("name") && plain != "last" && len(strings.Split(plain, "_")) <= 4:
		return nameField
	}
	return otherField
}

// address is what an e-mail address looks like, well enough to prefer it to what is none.
var address = regexp.MustCompile(`^[^\s@<>]+@[^\s@<>]+\.[^\s@<>.]{2,}$`)
